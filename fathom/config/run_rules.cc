#include "fathom/config/run_rules.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "fathom/base/env.h"
#include "fathom/base/error.h"
#include "fathom/config/flag_table.h"
#include "fathom/config/flag_text.h"

namespace fathom {
namespace {

constexpr const char* kDerived = "derived";

void DeriveSteps(RunConfig& config) {
  if (config.Int("steps") == -1 && config.Int("learning_rate_schedule_steps") == -1) {
    Throw(ErrorCode::kUsage, "steps=-1 takes learning_rate_schedule_steps, which is -1 too: give one of them");
  }
  if (config.Int("steps") == -1) config.Set("steps", config.Int("learning_rate_schedule_steps"), kDerived);
  if (config.Int("learning_rate_schedule_steps") == -1) config.Set("learning_rate_schedule_steps", config.Int("steps"), kDerived);
}

void DeriveRunName(RunConfig& config) {
  if (!config.String("run_name").empty()) return;
  const auto job = GetEnv("JOBSET_NAME");
  const std::string now = fmt::format("{:%Y-%m-%d-%H-%M}", fmt::localtime(std::time(nullptr)));
  config.Set("run_name", job ? *job : config.String("model_name") + "_" + now, kDerived);
}

void CheckFills(const RunConfig& config, const std::string& level) {
  int fills = 0;
  for (const auto& [key, flag] : config.flags()) {
    if (!key.starts_with(level + "_") || !key.ends_with("_parallelism")) continue;
    const double ranks = config.Float(key);
    if (ranks != -1 && (ranks < 1 || ranks != std::floor(ranks)))
      Throw(ErrorCode::kUsage, "{}={}: allowed is a whole number from 1, or -1 for what is left", key, ranks);
    if (ranks == -1) ++fills;
  }
  if (fills > 1) Throw(ErrorCode::kUsage, "{} of the {}_*_parallelism flags are -1; only one can take what is left", fills, level);
}

void CheckExclusive(const char* a, bool a_set, const char* b, bool b_set) {
  if (a_set && b_set) Throw(ErrorCode::kUsage, "{} and {} exclude each other: give one of them", a, b);
}

void CheckNumbers(const RunConfig& config) {
  const int64_t scale = config.Int("global_parameter_scale");
  if (scale < 1 || (scale & (scale - 1)) != 0) Throw(ErrorCode::kUsage, "global_parameter_scale={}: allowed is a power of two", scale);
  if (config.Int("eval_steps") == 0) Throw(ErrorCode::kUsage, "eval_steps=0: allowed is a whole number from 1, or -1 for the whole set");
  const double capacity = config.Float("capacity_factor");
  if (capacity != -1 && !(capacity > 0))
    Throw(ErrorCode::kUsage, "capacity_factor={}: allowed is -1 (no token is dropped) or a number above 0", capacity);
  for (const char* key : {"adam_b1", "adam_b2", "muon_beta"}) {
    if (config.Float(key) >= 1) Throw(ErrorCode::kUsage, "{}={}: allowed is a number from 0 and below 1", key, config.Float(key));
  }
  if (config.Int("mtp_eval_target_module") > config.Int("mtp_num_layers") && config.Given("mtp_num_layers")) {
    Throw(ErrorCode::kUsage, "mtp_eval_target_module={} is beyond mtp_num_layers={}", config.Int("mtp_eval_target_module"),
          config.Int("mtp_num_layers"));
  }
}

// In one process "what is left" is one rank.
bool IsNeutral(const FlagSpec& flag, const FlagValue& value) {
  if (value == flag.default_value) return true;
  const bool counts_ranks = flag.name.ends_with("_parallelism") || flag.name == "num_slices";
  const auto* ranks = std::get_if<double>(&value);
  return counts_ranks && ranks != nullptr && (*ranks == 1 || *ranks == -1);
}

void CheckPaths(const RunConfig& config) {
  for (const auto& [key, flag] : config.flags()) {
    if (!Flags().find(key)->second.is_path) continue;
    const auto* items = std::get_if<std::vector<std::string>>(&flag.value);
    if (items == nullptr) CheckLocal(config.String(key), key + "=" + config.String(key));
    for (const std::string& item : items != nullptr ? *items : std::vector<std::string>()) CheckLocal(item, key + "=" + item);
  }
  for (const std::string& word : config.words()) CheckLocal(word, word);
}

}  // namespace

void CheckLocal(const std::string& path, const std::string& what) {
  const size_t colon = path.find("://");
  if (colon == path.npos || colon == 0 || !std::isalnum(static_cast<unsigned char>(path[colon - 1]))) return;
  Throw(ErrorCode::kUsage, "{}: only local paths are read and written: copy it here or mount it, and give the path", what);
}

void CheckHonoured(std::string_view command, const RunConfig& config) {
  for (const auto& [key, flag] : config.flags()) {
    const FlagSpec& spec = Flags().find(key)->second;
    if (!spec.IsRefusedBy(command) || IsNeutral(spec, flag.value)) continue;
    Throw(ErrorCode::kUsage, "{}: {}={}: {}", flag.source, key, FormatFlag(flag.value), spec.help);
  }
}

void DeriveFlags(RunConfig& config) {
  DeriveSteps(config);
  DeriveRunName(config);
  if (config.Float("eval_per_device_batch_size") == 0) {
    config.Set("eval_per_device_batch_size", config.Float("per_device_batch_size"), kDerived);
  }
  if (config.String("mu_dtype").empty()) config.Set("mu_dtype", config.String("weight_dtype"), kDerived);
  // Before the final norm is what MaxText feeds its MTP module.
  if (config.String("compat") == "maxtext" && !config.Given("mtp_input")) config.Set("mtp_input", std::string("before_norm"), kDerived);
  for (const char* key : {"init_weights_seed", "data_shuffle_seed"}) {
    if (config.Given("seed") && !config.Given(key)) config.Set(key, config.Int("seed"), kDerived);
  }
}

void CheckFlagsTogether(const RunConfig& config) {
  CheckExclusive("load_parameters_path", !config.String("load_parameters_path").empty(), "load_full_state_path",
                 !config.String("load_full_state_path").empty());
  CheckExclusive("use_sft", config.Bool("use_sft"), "use_dpo", config.Bool("use_dpo"));
  CheckPaths(config);
  CheckFills(config, "ici");
  CheckFills(config, "dcn");
  CheckNumbers(config);
}

}  // namespace fathom
