#include "fathom/config/flag_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/nearest.h"
#include "fathom/config/built_in_files.h"
#include "fathom/config/flag_text.h"
#include "fathom/config/flag_yaml.h"

namespace fathom {
namespace {

constexpr double kMax = std::numeric_limits<double>::max(), kMiB = 1 << 20;

// The type of flags whose default is null.
struct NullDefault {
  std::string_view flag;
  FlagType type;
};
constexpr NullDefault kNullDefaults[] = {
    {"atol", FlagType::kFloat},
    {"clip_logits_epsilon", FlagType::kFloat},
    {"max_kl_div", FlagType::kFloat},
    {"muon_consistent_rms", FlagType::kFloat},
    {"max_num_checkpoints_to_keep", FlagType::kInt},
    {"token_size", FlagType::kInt},
};

// MaxText's default where it is not base.yml's: what a copy of MaxText's base.yml says without asking for it.
struct MaxTextDefault {
  std::string_view flag, text;
};
constexpr MaxTextDefault kMaxTextDefaults[] = {{"attention_type", "global"}, {"base_moe_mlp_dim", "-1"}, {"dataset_type", "tfds"},
                                               {"decoder_block", "llama2"},  {"remat_policy", "full"},   {"rope_type", "default"}};

// Words that a flag takes, or the items of a list; a leading '|' allows the empty one.
struct Choice {
  std::string_view flag, words;
};
constexpr Choice kChoices[] = {
    {"chat_template", "|v2|v3|v3-0324|r1|v3.1|v3.2"},
    {"compat", "|maxtext"},
    {"dataset_type", "text|tokens|synthetic|hf|grain|tfds|c4_mlperf|olmo_grain"},
    {"grain_packing_type", "first_fit|concat_then_split"},
    {"decode_sampling_strategy", "greedy|weighted|topk|nucleus|composite"},
    {"dtype", "float32|bfloat16|float16|float8"},
    {"eager_load_method", "auto|safetensors|transformers"},
    {"grad_dtype", "float32|bfloat16"},
    {"init_missing", "indexer|mtp"},
    {"log_level", "debug|info|warning|error|off"},
    {"lr_schedule_type", "cosine|wsd"},
    {"matmul_precision", "default|high|highest"},
    {"mtp_input", "after_norm|before_norm"},
    {"mu_dtype", "|float32|bfloat16"},
    {"muon_type", "optax_muon|maxtext_muon"},
    {"nu_dtype", "|float32|bfloat16"},
    {"opt_type", "adamw|adam_pax|sgd|muon"},
    {"numa", "off|interleave|local"},
    {"profiler", "|trace|xplane|nsys"},
    {"prompt_style", "original|lm_eval|maxtext"},
    {"quantization", "|fp8_block"},
    {"remat_policy",
     "full|minimal|none|minimal_with_context|minimal_with_quantization|minimal_with_context_and_quantization|save_dot_with_context_except_"
     "mlp|"
     "save_dot_except_mlpwi|save_dot_except_mlp|save_qkv_proj|save_out_proj|qkv_proj_offloaded|minimal_offloaded|custom"},
    {"restart", "|auto"},
    {"rope_type", "yarn|default"},
    {"routed_score_func", "|softmax|sigmoid"},
    {"save_dtype", "|float32|bfloat16|float16"},
    {"scale_fmt", "|float32|ue8m0"},
    {"scoring", "|letters|continuations|generated"},
    {"source_checkpoint_layout", "orbax|safetensors|safetensors_dynamic"},
    {"speculative", "|mtp"},
    {"to", "|hf|orbax"},
    {"tokenizer_type", "huggingface|sentencepiece|tiktoken"},
    {"weight_dtype", "float32|bfloat16|float16"},
    {"wsd_decay_style", "linear|cosine"},
};

struct Range {
  std::string_view flag;
  double low, high;
};
constexpr Range kRanges[] = {
    {"adam_b1", 0, 1},
    {"adam_b2", 0, 1},
    {"adam_eps", 0, kMax},
    {"adam_eps_root", 0, kMax},
    {"adam_weight_decay", 0, kMax},
    {"atol", 0, kMax},
    {"checkpoint_period", 1, kMax},
    {"checkpoint_storage_target_data_file_size_bytes", 1, kMax},
    {"decode_sampling_nucleus_p", -1, 1},
    {"decode_sampling_temperature", 0, kMax},
    {"disk_gb_s", 0, kMax},
    {"hosts", 0, 1 << 20},
    {"memory", 0, kMax},
    {"net_gb_s", 1e-6, kMax},
    {"net_us", 0, kMax},
    {"ranks_per_host", 1, 65536},
    {"decode_sampling_top_k", 0, kMax},
    {"draft_tokens", 1, 64},
    {"batch_size", 1, 4096},
    {"eval_interval", -1, kMax},
    {"eval_per_device_batch_size", 0, kMax},
    {"eval_start_step", 0, kMax},
    {"eval_steps", -1, kMax},
    {"global_rampup_samples", 1, kMax},
    {"gradient_accumulation_steps", 1, kMax},
    {"gradient_clipping_threshold", 0, kMax},
    {"hang_seconds", 0, kMax},
    {"held_out_fraction", 0, 1},
    {"indexer_loss_scaling_factor", 0, kMax},
    {"learning_rate", 0, kMax},
    {"learning_rate_final_fraction", 0, kMax},
    {"learning_rate_schedule_steps", -1, kMax},
    {"limit", 0, kMax},
    {"load_balance_loss_weight", 0, kMax},
    {"log_period", 1, kMax},
    {"max_kl_div", 0, kMax},
    {"max_new_tokens", -1, 1 << 30},
    {"max_num_checkpoints_to_keep", 1, kMax},
    {"max_prefill_predict_length", 0, kMax},
    {"max_segments_per_seq", -1, kMax},
    {"max_shard_size", 1, kMax},
    {"max_target_length", 1, kMax},
    {"memory_limit", 64 * kMiB, kMax},
    {"mtp_eval_target_module", 0, 64},
    {"mtp_loss_scaling_factor", 0, kMax},
    {"mtp_num_layers", 0, 64},
    {"muon_beta", 0, 1},
    {"muon_consistent_rms", 0, kMax},
    {"muon_weight_decay", 0, kMax},
    {"num_epoch", 0, kMax},
    {"num_shots", 0, 1000},
    {"per_device_batch_size", 1e-9, kMax},
    {"per_device_batch_size_increment", 1, kMax},
    {"per_device_batch_size_start", 1, kMax},
    {"profiler_steps", 1, 1000},
    {"qk_clip_threshold", 0, kMax},
    {"routed_bias_update_rate", 0, kMax},
    {"rtol", 0, kMax},
    {"sample_period", -1, kMax},
    {"sample_tokens", 1, 1 << 30},
    {"skip_first_n_steps_for_profiler", 0, kMax},
    {"skip_step_interval", 2, kMax},
    {"skip_step_scaling_factor", 0, kMax},
    {"steps", -1, kMax},
    {"threads", 0, 65536},
    {"token_size", 1, kMax},
    {"vocab_size", 1, 1 << 30},
    {"warmup_steps_fraction", 0, 1},
    {"wsd_decay_steps_fraction", 0, 1},
    {"z_loss_multiplier", 0, kMax},
    {"zstd_level", -7, 9},
};

constexpr std::string_view kSizes[] = {"checkpoint_storage_target_data_file_size_bytes", "max_shard_size", "memory", "memory_limit"};
constexpr std::string_view kPaths[] = {"a",
                                       "against",
                                       "b",
                                       "base_config",
                                       "base_output_directory",
                                       "data_dir",
                                       "chat_template_path",
                                       "dataset_path",
                                       "dump",
                                       "eval_dataset_path",
                                       "golden",
                                       "golden_logits_path",
                                       "hf_eval_files",
                                       "hf_lora_adapter_path",
                                       "hf_model_path",
                                       "hf_path",
                                       "hf_train_files",
                                       "input",
                                       "input_fp8_hf_path",
                                       "input_path",
                                       "json",
                                       "load_full_state_path",
                                       "load_parameters_path",
                                       "lora.lora_restore_path",
                                       "machine",
                                       "manifest",
                                       "messages_file",
                                       "metrics_file",
                                       "output",
                                       "output_bf16_hf_path",
                                       "output_logits_path",
                                       "output_path",
                                       "prompt_file",
                                       "prompts_output",
                                       "run_name",
                                       "samples_output",
                                       "shots_input",
                                       "tokenizer_path"};
constexpr std::string_view kLiterals[] = {"prompt", "prompt_template", "sample_prompt", "text"};
constexpr std::string_view kRepeats[] = {"input", "stop"};

std::vector<std::string> Split(std::string_view words, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= words.size();) {
    const size_t end = std::min(words.find(separator, begin), words.size());
    parts.emplace_back(words.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// A flag that only MaxText has takes any number, and any word where MaxText's default is none.
FlagType TypeOf(const std::string& name, const FlagValue& value, FlagRole role) {
  if (role != FlagRole::kOwn && std::holds_alternative<int64_t>(value)) return FlagType::kFloat;
  if (role != FlagRole::kOwn && std::holds_alternative<std::monostate>(value)) return FlagType::kString;
  if (std::holds_alternative<bool>(value)) return FlagType::kBool;
  if (std::holds_alternative<int64_t>(value)) return FlagType::kInt;
  if (std::holds_alternative<double>(value)) return FlagType::kFloat;
  if (std::holds_alternative<std::string>(value)) return FlagType::kString;
  if (std::holds_alternative<std::vector<std::string>>(value)) return FlagType::kList;
  const auto* declared =
      std::find_if(std::begin(kNullDefaults), std::end(kNullDefaults), [&](const NullDefault& x) { return x.flag == name; });
  FATHOM_CHECK(declared != std::end(kNullDefaults), "base.yml: {} is null and has no declared type", name);
  return declared->type;
}

// name -> the comment that follows its value.
std::map<std::string, std::string, std::less<>> ReadHelp(std::string_view yml) {
  std::map<std::string, std::string, std::less<>> help;
  for (const std::string& line : Split(yml, '\n')) {
    const size_t colon = line.find(": "), hash = line.rfind("  # ");
    if (!line.starts_with('#') && colon != line.npos && hash != line.npos) help[line.substr(0, colon)] = line.substr(hash + 4);
  }
  return help;
}

// name -> the commands in brackets in the heading of its section: "# --- What a step does (train, sft) ---".
std::map<std::string, std::vector<std::string>, std::less<>> ReadCommands(std::string_view yml) {
  std::map<std::string, std::vector<std::string>, std::less<>> commands;
  std::vector<std::string> current;
  for (const std::string& line : Split(yml, '\n')) {
    const size_t open = line.rfind('('), close = line.rfind(')');
    if (line.starts_with("# --- ") && open < close && close != line.npos) {
      current = Split(line.substr(open + 1, close - open - 1), ',');
      for (std::string& command : current) command.erase(0, command.find_first_not_of(' '));
    }
    commands[line.substr(0, line.find(": "))] = current;
  }
  return commands;
}

void ApplyRules(FlagTable& table) {
  const auto flag = [&](std::string_view name) -> FlagSpec& {
    const auto found = table.find(name);
    FATHOM_CHECK(found != table.end(), "a rule names {}, which no file of configs/ has", name);
    return found->second;
  };
  for (const Choice& choice : kChoices) flag(choice.flag).allowed = Split(choice.words, '|');
  for (const Range& range : kRanges) std::tie(flag(range.flag).low, flag(range.flag).high) = std::pair(range.low, range.high);
  for (const auto name : kSizes) flag(name).is_size = true;
  for (const auto name : kLiterals) flag(name).is_literal = true;
  for (const auto name : kRepeats) flag(name).repeats = true;
  for (const auto name : kPaths) flag(name).is_path = true;
  for (const MaxTextDefault& other : kMaxTextDefaults) {
    FlagSpec& spec = flag(other.flag);
    spec.maxtext_default = ReadFlag(spec, other.text, "MaxText's default");
  }
}

// The flags of a file of configs/.
void AddFile(std::string_view name, FlagRole role, FlagTable& table) {
  const auto& files = BuiltInFiles();
  const auto file = std::find_if(files.begin(), files.end(), [&](const BuiltInFile& x) { return x.name == name; });
  FATHOM_CHECK(file != files.end(), "configs/{} is not part of this binary", name);
  const auto help = ReadHelp(file->text);
  const auto commands = ReadCommands(file->text);
  for (auto& [key, value] : ReadYamlByLook(file->text, std::string(name))) {
    const auto comment = help.find(key);
    FATHOM_CHECK(comment != help.end(), "{}: {} has no comment", name, key);
    FATHOM_CHECK(!table.contains(key), "{}: {} stands in another file too", name, key);
    FlagSpec flag{.name = key, .role = role, .type = TypeOf(key, value, role), .default_value = value, .help = comment->second};
    if (const auto* whole = std::get_if<int64_t>(&value); whole != nullptr && flag.type == FlagType::kFloat)
      flag.default_value = static_cast<double>(*whole);
    flag.maxtext_default = flag.default_value;
    if (role == FlagRole::kRefused) flag.refused_by = commands.at(key);
    FATHOM_CHECK(role != FlagRole::kRefused || !flag.refused_by.empty(), "{}: {} stands below no heading that names commands", name, key);
    table[key] = std::move(flag);
  }
}

FlagTable MakeTable() {
  FlagTable table;
  AddFile("base.yml", FlagRole::kOwn, table);
  AddFile("maxtext_accepted.yml", FlagRole::kAccepted, table);
  AddFile("maxtext_refused.yml", FlagRole::kRefused, table);
  ApplyRules(table);
  return table;
}

std::string NumberText(const FlagSpec& flag, std::string_view kind) {
  const bool has_low = flag.low > -kMax, has_high = flag.high < kMax;
  if (has_low && has_high) return fmt::format("{} from {} to {}", kind, flag.low, flag.high);
  if (has_low && flag.is_size && flag.low >= kMiB) return fmt::format("{} from {}MiB", kind, flag.low / kMiB);
  if (has_low) return fmt::format("{} from {}", kind, flag.low);
  return std::string(kind);
}

std::string ChoiceText(const std::vector<std::string>& allowed) {
  std::vector<std::string> words;
  for (const std::string& word : allowed) words.push_back(word.empty() ? "nothing" : word);
  return words.size() == 1 ? words[0] : fmt::format("one of {}", fmt::join(words, ", "));
}

}  // namespace

std::string FlagSpec::AllowedText() const {
  std::string text;
  switch (type) {
    case FlagType::kBool:
      text = "true or false";
      break;
    case FlagType::kInt:
      text = NumberText(*this, is_size ? "a whole number or a size such as 5GB," : "a whole number");
      break;
    case FlagType::kFloat:
      text = NumberText(*this, "a number");
      break;
    case FlagType::kString:
      text = allowed.empty() ? "a string" : ChoiceText(allowed);
      break;
    case FlagType::kList:
      text = allowed.empty() ? "a list such as [a,b]" : fmt::format("a list of {}", fmt::join(allowed, ", "));
      break;
  }
  return nullable() ? text + ", or null" : text;
}

bool FlagSpec::IsRefusedBy(std::string_view command) const {
  return std::ranges::any_of(
      refused_by, [&](const std::string& x) { return command.starts_with(x) && (command.size() == x.size() || command[x.size()] == ' '); });
}

const FlagTable& Flags() {
  static const FlagTable table = MakeTable();
  return table;
}

std::string WithUnderscores(std::string_view name) {
  std::string key(name);
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

std::vector<std::string> FlagNames() {
  std::vector<std::string> names;
  for (const auto& [name, flag] : Flags()) names.push_back(name);
  return names;
}

const FlagSpec& FindFlag(std::string_view name, const std::string& where) {
  const std::string key = WithUnderscores(name);
  const auto found = Flags().find(key);
  if (found != Flags().end()) return found->second;
  Throw(ErrorCode::kUsage, "{}: unknown flag {}{}", where, name, DidYouMean(key, FlagNames()));
}

}  // namespace fathom
