// Writes a trained vocabulary in Hugging Face's layout.
#pragma once

#include <filesystem>
#include <string>

#include "fathom/tokenizer/pre_tokenizer.h"
#include "fathom/tokenizer/trainer.h"

namespace fathom {

// The content of a tokenizer.json that Tokenizer::Load and Hugging Face's libraries read.
std::string TokenizerJson(const TrainedBpe& bpe, const PreTokenizer& pre_tokenizer);

// Writes tokenizer.json and tokenizer_config.json into the folder, which is made if it is absent. The first special token is BOS, the
// second EOS. Throws Error(kResource).
void WriteTokenizer(const std::filesystem::path& folder, const TrainedBpe& bpe, const PreTokenizer& pre_tokenizer);

}  // namespace fathom
