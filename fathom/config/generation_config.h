// generation_config.json: how the model's makers mean it to be decoded. transformers' generate reads it before config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fathom {

struct GenerationConfig {
  std::vector<int64_t> eos_token_ids;  // any of them ends an answer; empty: the file says nothing, config.json decides
  bool do_sample = false;
  std::optional<double> temperature, top_p;
  std::optional<int64_t> top_k;

  // The decoding flags that say the same, "" where the file asks for no sampling.
  std::string SamplingFlags() const;
};

// A folder without the file gives the defaults; fields that decoding does not read are not looked at. Throws Error(kInput) naming the file
// and the field: not JSON, a field of another type.
GenerationConfig ReadGenerationConfig(const std::filesystem::path& checkpoint_dir);

}  // namespace fathom
