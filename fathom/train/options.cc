#include "fathom/train/options.h"

#include <cmath>

#include "fathom/base/error.h"
#include "fathom/base/log.h"
#include "fathom/model/layer_flags.h"

namespace fathom {
namespace {

constexpr double kLogSeconds = 60;
constexpr const char* kGreeting = "Hello!";

// MaxText's other policies choose what an accelerator keeps where.
Remat ParseRemat(const std::string& policy) {
  if (policy == "none") return Remat::kNone;
  if (policy == "full") return Remat::kFull;
  if (policy != "minimal") spdlog::info("remat_policy={} means minimal here", policy);
  return Remat::kMinimal;
}

// Sequences: MaxText's fractions of one, which several devices share, have no meaning here.
int64_t ReadRows(const RunConfig& config, std::string_view flag) {
  const double rows = config.Float(flag);
  if (rows < 1 || rows != std::floor(rows))
    Throw(ErrorCode::kUsage, "{}={}: allowed is a whole number of sequences, at least 1", flag, rows);
  return static_cast<int64_t>(rows);
}

ScheduleConfig ReadSchedule(const RunConfig& config, int64_t steps) {
  ScheduleConfig s;
  s.type = ParseScheduleType(config.String("lr_schedule_type"));
  s.wsd_decay_style = ParseDecayStyle(config.String("wsd_decay_style"));
  s.learning_rate = config.Float("learning_rate");
  s.final_fraction = config.Float("learning_rate_final_fraction");
  s.warmup_steps_fraction = config.Float("warmup_steps_fraction");
  s.wsd_decay_steps_fraction = config.Float("wsd_decay_steps_fraction");
  s.steps = config.Int("learning_rate_schedule_steps") > 0 ? config.Int("learning_rate_schedule_steps") : steps;
  CheckSchedule(s);
  return s;
}

OptimizerConfig ReadOptimizer(const RunConfig& config) {
  OptimizerConfig o;
  o.type = ParseOptimizerType(config.String("opt_type"));
  o.b1 = config.Float("adam_b1");
  o.b2 = config.Float("adam_b2");
  o.eps = config.Float("adam_eps");
  o.eps_root = config.Float("adam_eps_root");
  o.weight_decay = config.Float("adam_weight_decay");
  o.gradient_clipping_threshold = config.Float("gradient_clipping_threshold");
  const std::string& mu = config.String("mu_dtype");
  o.muon_beta = config.Float("muon_beta");
  o.muon_weight_decay = config.Float("muon_weight_decay");
  if (!config.IsNull("muon_consistent_rms")) o.muon_consistent_rms = config.Float("muon_consistent_rms");
  if (config.Bool("skip_step_on_spikes")) o.spikes = {config.Int("skip_step_interval"), config.Float("skip_step_scaling_factor")};
  o.mu_dtype = mu.empty() ? ParseComputeDType(config, "weight_dtype") : ParseComputeDType(config, "mu_dtype");
  o.nu_dtype = config.String("nu_dtype") == "bfloat16" ? DType::kBF16 : DType::kF32;
  if (o.type == OptimizerType::kSgd && o.nu_dtype == DType::kBF16)
    Throw(ErrorCode::kUsage, "nu_dtype=bfloat16: opt_type=sgd has no moments");
  o.stochastic_rounding = config.Bool("stochastic_rounding");
  o.seed = static_cast<uint64_t>(config.Int("init_weights_seed"));
  return o;
}

// What an optimizer stores as BF16, or there is nothing to round.
void CheckRounding(const TrainOptions& o) {
  if (!o.optimizer.stochastic_rounding) return;
  const bool weights = o.weights == DType::kBF16 && !o.lora.enabled, has_moments = o.optimizer.type != OptimizerType::kSgd;
  if (weights || (has_moments && (o.optimizer.mu_dtype == DType::kBF16 || o.optimizer.nu_dtype == DType::kBF16))) return;
  Throw(ErrorCode::kUsage,
        "stochastic_rounding=true: nothing that the optimizer stores is bfloat16; give weight_dtype, mu_dtype or nu_dtype=bfloat16");
}

void ReadQkClip(const RunConfig& config, TrainOptions& o) {
  if (!config.Bool("use_qk_clip")) return;
  o.qk_clip = config.Float("qk_clip_threshold");
  o.layers.max_logits = true;
  o.clips_plain_queries = config.String("compat") != "maxtext";
  if (!(o.qk_clip > 0)) Throw(ErrorCode::kUsage, "qk_clip_threshold={}: allowed is a number above 0", o.qk_clip);
  if (o.lora.enabled) Throw(ErrorCode::kUsage, "use_qk_clip=true scales weights that lora.enable_lora=true leaves as they are");
}

// The two stages of the V3.2 report. MaxText's warm-up lets the attention be sparse already, and drops the language model's loss of every
// run that isn't the second stage.
void ReadIndexer(const RunConfig& config, TrainOptions& o) {
  const bool maxtext = config.String("compat") == "maxtext";
  o.indexer.factor = static_cast<float>(config.Float("indexer_loss_scaling_factor"));
  o.indexer.sparse = config.Bool("indexer_sparse_training");
  const bool warm_up = o.indexer.factor > 0 && !o.indexer.sparse;
  o.indexer.dense_attention = warm_up && !maxtext;
  o.lm_loss = !warm_up && !(maxtext && !o.indexer.sparse);
}

void ReadMtp(const RunConfig& config, TrainOptions& o) {
  o.mtp.modules = config.Int("mtp_num_layers");
  o.mtp.input = ParseMtpInput(config.String("mtp_input"));
  o.mtp.eval_module = config.Int("mtp_eval_target_module");
  o.mtp_factor = config.Float("mtp_loss_scaling_factor");
  o.mtp_own_head = config.Bool("mtp_own_head");
}

// MaxText takes the softmax of the scores, and padding too; Megatron, as the V3 report, each token's highest scores. Without either flag
// the session decides by the model: V2's expert-level loss counts the experts that ran, V3's sequence-wise one the highest scores.
void ReadBalance(const RunConfig& config, TrainOptions& o) {
  const bool maxtext = config.String("compat") == "maxtext", megatron = config.Bool("moe_use_megatron_seq_aux_loss");
  o.balance.factor = static_cast<float>(config.Float("load_balance_loss_weight"));
  o.balance.form = maxtext && !megatron ? BalanceForm::kSoftmaxOfScores : BalanceForm::kNormalizedScores;
  o.balance.highest_scores = megatron;
  o.balance.padding = maxtext;
  o.balance_sum = megatron;
  o.bias_update_rate = static_cast<float>(config.Float("routed_bias_update_rate"));
}

void ReadLora(const RunConfig& config, TrainOptions& o) {
  o.lora = {config.Bool("lora.enable_lora"), config.Int("lora.lora_rank"), config.Float("lora.lora_alpha"),
            config.String("lora.lora_module_path"), config.String("lora.lora_restore_path")};
  const std::string& adapter = config.String("hf_lora_adapter_path");
  if (!o.lora.enabled) {
    for (const char* flag : {"lora.lora_module_path", "lora.lora_restore_path", "hf_lora_adapter_path"}) {
      if (!config.String(flag).empty()) Throw(ErrorCode::kUsage, "{} needs lora.enable_lora=true", flag);
    }
    for (const char* flag : {"lora.lora_rank", "lora.lora_alpha"}) {
      if (config.Given(flag)) Throw(ErrorCode::kUsage, "{} needs lora.enable_lora=true", flag);
    }
    return;
  }
  if (!adapter.empty() && !o.lora.restore.empty())
    Throw(ErrorCode::kUsage, "hf_lora_adapter_path and lora.lora_restore_path both name the adapter to begin with: give one of them");
  if (!adapter.empty()) o.lora.restore = adapter;
  if (!config.Strings("init_missing").empty())
    Throw(ErrorCode::kUsage,
          "init_missing with lora.enable_lora=true: a run saves its adapters only, so what is fresh beside them would be lost");
  if (o.lora.rank < 1) Throw(ErrorCode::kUsage, "lora.lora_rank={}: at least 1 is needed", o.lora.rank);
  if (o.optimizer.type == OptimizerType::kMuon) Throw(ErrorCode::kUsage, "opt_type=muon: adapters are trained with adamw or sgd");
  if (!(o.lora.alpha > 0)) Throw(ErrorCode::kUsage, "lora.lora_alpha={}: above 0 is needed", o.lora.alpha);
  if (!o.trainable_mask.empty())
    Throw(ErrorCode::kUsage,
          "trainable_parameters_mask has no meaning with lora.enable_lora=true; lora.lora_module_path chooses what is trained");
}

// Steps of minutes are not worth a silence of hours, unless it is asked for.
void ReadLog(const RunConfig& config, TrainOptions& o) {
  o.log_period = config.Int("log_period");
  if (!config.Given("log_period")) o.log_seconds = kLogSeconds;
}

void ReadSamples(const RunConfig& config, TrainOptions& o) {
  o.samples = {config.Int("sample_period"), config.Int("sample_tokens"), config.String("sample_prompt"), config.Bool("add_bos")};
  if (config.Bool("use_sft") && o.samples.prompt.empty()) o.samples.prompt = kGreeting;
  if (o.samples.period > 0 && o.mesh.world().size() > 1)
    Throw(ErrorCode::kUsage, "sample_period={}: several ranks write no samples; fathom decode reads their checkpoints", o.samples.period);
}

void ReadEval(const RunConfig& config, TrainOptions& o) {
  o.eval_rows = ReadRows(config, "eval_per_device_batch_size");
  o.eval_interval = config.Int("eval_interval");
  o.eval_steps = config.Int("eval_steps");
  o.eval_start_step = config.Int("eval_start_step");
  o.target_eval_loss = config.Float("target_eval_loss");
}

void ReadCheckpointing(const RunConfig& config, TrainOptions& o) {
  o.checkpointing = config.Bool("enable_checkpointing");
  o.save_on_completion = config.Bool("save_checkpoint_on_completion");
  o.checkpoint_period = config.Int("checkpoint_period");
  o.save_beside = config.Bool("async_checkpointing");
  const auto& keep = config.flags().find("max_num_checkpoints_to_keep")->second.value;
  o.keep = std::holds_alternative<std::monostate>(keep) ? 0 : config.Int("max_num_checkpoints_to_keep");
  o.max_shard_size = config.Int("max_shard_size");
}

// A folder inside base_output_directory.
std::filesystem::path RunDir(const RunConfig& config) {
  const std::filesystem::path name = config.String("run_name");
  const std::filesystem::path normal = name.lexically_normal();
  if (name.is_absolute() || (!normal.empty() && *normal.begin() == "..")) {
    Throw(ErrorCode::kUsage, "run_name={}: leads out of base_output_directory; give the place there and a plain name here", name.string());
  }
  const std::string& base = config.String("base_output_directory");
  return std::filesystem::path(base.empty() ? "fathom_output" : base) / name;
}

}  // namespace

TrainOptions ReadTrainOptions(const RunConfig& config, const Mesh& mesh) {
  TrainOptions o;
  o.mesh = mesh;
  o.run_name = config.String("run_name");
  o.run_dir = RunDir(config);
  o.load_parameters_path = config.String("load_parameters_path");
  o.load_full_state_path = config.String("load_full_state_path");
  o.steps = config.Int("steps") > 0 ? config.Int("steps") : config.Int("learning_rate_schedule_steps");
  if (o.steps <= 0) Throw(ErrorCode::kUsage, "steps={}: at least 1 is needed", config.Int("steps"));
  o.rows = ReadRows(config, "per_device_batch_size");
  o.share_moments = config.Bool("shard_optimizer_over_data");
  o.length = config.Int("max_target_length");
  o.accumulation = config.Int("gradient_accumulation_steps");
  o.compute = ParseComputeDType(config, "dtype");
  o.weights = ParseComputeDType(config, "weight_dtype");
  o.fp8_block = config.String("quantization") == "fp8_block";
  o.remat = ParseRemat(config.String("remat_policy"));
  o.z_loss = static_cast<float>(config.Float("z_loss_multiplier"));
  o.layers = ReadLayerOptions(config);
  ReadIndexer(config, o);
  ReadBalance(config, o);
  o.schedule = ReadSchedule(config, o.steps);
  o.optimizer = ReadOptimizer(config);
  if (o.share_moments && o.optimizer.type == OptimizerType::kMuon)
    Throw(ErrorCode::kUsage, "shard_optimizer_over_data=true: opt_type=muon needs whole matrices; give adamw, or false");
  o.adamw_mask = config.Strings("adamw_mask");
  o.trainable_mask = config.Strings("trainable_parameters_mask");
  o.norm_of_masked = config.String("compat") == "maxtext";
  o.init_seed = static_cast<uint64_t>(config.Int("init_weights_seed"));
  o.abort_on_nan = config.Bool("abort_on_nan_loss");
  o.abort_on_inf = config.Bool("abort_on_inf_loss");
  ReadMtp(config, o);
  ReadLora(config, o);
  ReadLog(config, o);
  ReadSamples(config, o);
  ReadQkClip(config, o);
  CheckRounding(o);
  ReadEval(config, o);
  ReadCheckpointing(config, o);
  for (int64_t* rows : {&o.rows, &o.eval_rows}) *rows = *rows * mesh.world().size() / mesh.row_ranks();
  return o;
}

}  // namespace fathom
