#include "fathom/tokenizer/tokenizer_writer.h"

#include <system_error>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"

namespace fathom {
namespace {

std::string AddedTokensJson(const TrainedBpe& bpe) {
  Json tokens = Json::array();
  for (int64_t id = 0; id < bpe.special_tokens; ++id) {
    tokens.push_back({{"id", id},
                      {"content", bpe.tokens[static_cast<size_t>(id)]},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", true}});
  }
  return tokens.dump();
}

// By id, so that the file reads as the vocabulary was made.
std::string VocabularyJson(const TrainedBpe& bpe) {
  std::string out = "{";
  for (size_t id = 0; id < bpe.tokens.size(); ++id) {
    out += fmt::format("{}\n      {}: {}", id ? "," : "", Json(bpe.tokens[id]).dump(), id);
  }
  return out + "\n    }";
}

std::string MergesJson(const TrainedBpe& bpe) {
  std::string out = "[";
  for (size_t rank = 0; rank < bpe.merges.size(); ++rank) {
    const auto token = [&](int32_t id) { return bpe.tokens[static_cast<size_t>(id)]; };
    out += fmt::format("{}\n      {}", rank ? "," : "", Json(token(bpe.merges[rank].left) + " " + token(bpe.merges[rank].right)).dump());
  }
  return out + "\n    ]";
}

std::string ConfigJson(const TrainedBpe& bpe) {
  const auto special = [&](int64_t id) { return id < bpe.special_tokens ? Json(bpe.tokens[static_cast<size_t>(id)]) : Json(); };
  const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                       {"add_bos_token", bpe.special_tokens > 0},
                       {"add_eos_token", false},
                       {"bos_token", special(0)},
                       {"eos_token", special(1)},
                       {"pad_token", special(1)},
                       {"clean_up_tokenization_spaces", false}};
  return config.dump(2) + "\n";
}

}  // namespace

std::string TokenizerJson(const TrainedBpe& bpe, const PreTokenizer& pre_tokenizer) {
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n";
  out += "  \"added_tokens\": " + AddedTokensJson(bpe) + ",\n  \"normalizer\": null,\n";
  out += "  \"pre_tokenizer\": " + pre_tokenizer.ToJson().dump() + ",\n  \"post_processor\": null,\n";
  out += "  \"decoder\": " + byte_level.dump() + ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n";
  out += "    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n";
  out += "    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n";
  return out + "    \"vocab\": " + VocabularyJson(bpe) + ",\n    \"merges\": " + MergesJson(bpe) + "\n  }\n}\n";
}

void WriteTokenizer(const std::filesystem::path& folder, const TrainedBpe& bpe, const PreTokenizer& pre_tokenizer) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) Throw(ErrorCode::kResource, "{}: cannot create the folder: {}", folder.string(), error.message());
  WriteFileAtomically(folder / "tokenizer.json", TokenizerJson(bpe, pre_tokenizer));
  WriteFileAtomically(folder / "tokenizer_config.json", ConfigJson(bpe));
}

}  // namespace fathom
