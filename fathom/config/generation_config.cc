#include "fathom/config/generation_config.h"

#include <fmt/format.h>

#include "fathom/config/json_fields.h"

namespace fathom {
namespace {

template <class T>
std::optional<T> Given(bool given, const T& value) {
  return given ? std::optional(value) : std::nullopt;
}

}  // namespace

std::string GenerationConfig::SamplingFlags() const {
  if (!do_sample) return "";
  const bool k = top_k.value_or(0) > 0, p = top_p.value_or(1) < 1;
  std::string flags = fmt::format("decode_sampling_strategy={}", k && p ? "composite" : k ? "topk" : p ? "nucleus" : "weighted");
  if (temperature) flags += fmt::format(" decode_sampling_temperature={}", *temperature);
  if (k) flags += fmt::format(" decode_sampling_top_k={}", *top_k);
  if (p) flags += fmt::format(" decode_sampling_nucleus_p={}", *top_p);
  return flags;
}

GenerationConfig ReadGenerationConfig(const std::filesystem::path& checkpoint_dir) {
  const std::filesystem::path path = checkpoint_dir / "generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  const Json json = ReadJsonFile(path);
  JsonFields fields(json, path.string());
  GenerationConfig config;
  if (fields.Has("eos_token_id")) config.eos_token_ids = fields.Ids("eos_token_id");
  config.do_sample = fields.Bool("do_sample", false);
  config.temperature = Given(fields.Has("temperature"), fields.Double("temperature", 1));
  config.top_p = Given(fields.Has("top_p"), fields.Double("top_p", 1));
  config.top_k = Given(fields.Has("top_k"), fields.Int("top_k", 0));
  return config;
}

}  // namespace fathom
