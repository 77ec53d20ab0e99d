#include "apps/command.h"
#include "fathom/base/error.h"
#include "fathom/train/loop.h"

namespace fathom {
namespace {

std::vector<std::string> TrainFlags() {
  return {"run_name",
          "base_output_directory",
          "load_parameters_path",
          "load_full_state_path",
          "steps",
          "per_device_batch_size",
          "enable_rampup_batch_size",
          "per_device_batch_size_start",
          "per_device_batch_size_increment",
          "global_rampup_samples",
          "max_target_length",
          "gradient_accumulation_steps",
          "dtype",
          "weight_dtype",
          "mu_dtype",
          "nu_dtype",
          "stochastic_rounding",
          "remat_policy",
          "z_loss_multiplier",
          "mtp_loss_scaling_factor",
          "mtp_eval_target_module",
          "mtp_input",
          "mtp_own_head",
          "init_missing",
          "ignore_config_keys",
          "opt_type",
          "learning_rate",
          "lr_schedule_type",
          "learning_rate_final_fraction",
          "warmup_steps_fraction",
          "learning_rate_schedule_steps",
          "wsd_decay_steps_fraction",
          "wsd_decay_style",
          "adam_b1",
          "adam_b2",
          "adam_eps",
          "adam_eps_root",
          "adam_weight_decay",
          "muon_type",
          "muon_beta",
          "muon_weight_decay",
          "muon_consistent_rms",
          "skip_step_on_spikes",
          "skip_step_interval",
          "skip_step_scaling_factor",
          "adamw_mask",
          "use_qk_clip",
          "qk_clip_threshold",
          "trainable_parameters_mask",
          "lora.enable_lora",
          "lora.lora_rank",
          "lora.lora_alpha",
          "lora.lora_module_path",
          "lora.lora_restore_path",
          "hf_lora_adapter_path",
          "gradient_clipping_threshold",
          "dataset_type",
          "hf_path",
          "hf_data_dir",
          "hf_name",
          "train_split",
          "hf_eval_split",
          "hf_train_files",
          "hf_eval_files",
          "dataset_path",
          "eval_dataset_path",
          "held_out_fraction",
          "train_data_columns",
          "tokenizer_path",
          "add_bos",
          "add_eos",
          "packing",
          "grain_packing_type",
          "max_segments_per_seq",
          "num_epoch",
          "enable_data_shuffling",
          "data_shuffle_seed",
          "init_weights_seed",
          "seed",
          "eval_interval",
          "eval_steps",
          "eval_start_step",
          "eval_per_device_batch_size",
          "target_eval_loss",
          "abort_on_nan_loss",
          "abort_on_inf_loss",
          "enable_checkpointing",
          "checkpoint_period",
          "save_checkpoint_on_completion",
          "restart",
          "shard_optimizer_over_data",
          "async_checkpointing",
          "max_num_checkpoints_to_keep",
          "max_shard_size",
          "log_period",
          "sample_period",
          "sample_tokens",
          "sample_prompt",
          "profiler",
          "skip_first_n_steps_for_profiler",
          "profiler_steps",
          "metrics_file",
          "enable_tensorboard",
          "compat",
          "sparse_matmul",
          "capacity_factor",
          "load_balance_loss_weight",
          "moe_use_megatron_seq_aux_loss",
          "routed_bias_update_rate",
          "indexer_sparse_training",
          "indexer_loss_scaling_factor",
          "indexer_fp8",
          "quantization"};
}

// Of conversations.
const std::vector<std::string>& SftFlags() {
  static const std::vector<std::string> flags = {
      "use_sft", "sft_train_on_completion_only", "use_truncation", "skip_bad_rows", "chat_template", "chat_template_path"};
  return flags;
}

std::vector<std::string> AllFlags() {
  std::vector<std::string> flags = TrainFlags();
  flags.insert(flags.end(), SftFlags().begin(), SftFlags().end());
  return WithModelFlags(flags);
}

int SftOnMesh(const RunConfig& config, const Mesh& mesh) {
  if (!config.Bool("use_sft")) Throw(ErrorCode::kUsage, "use_sft=false: fathom sft trains on conversations; fathom train does on text");
  return TrainOnMesh(config, mesh);
}

int RunSft(const RunConfig& config) { return SftOnMesh(config, {}); }

}  // namespace

Command TrainCommand() {
  return {.name = "train",
          .summary = "pre-training and fine-tuning, from a checkpoint or from scratch",
          .flags = WithMeshFlags(AllFlags()),
          .run = RunTraining,
          .run_rank = TrainOnMesh};
}

Command SftCommand() {
  return {.name = "sft",
          .summary = "fine-tuning on conversations: train with the defaults of sft.yml",
          .flags = WithMeshFlags(AllFlags()),
          .run = RunSft,
          .defaults = "sft.yml",
          .run_rank = SftOnMesh};
}

}  // namespace fathom
