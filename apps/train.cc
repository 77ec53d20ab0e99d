#include "fathom/train/loop.h"

#include "apps/command.h"

namespace fathom {

Command TrainCommand() {
  return {.name = "train",
          .summary = "pre-training and fine-tuning, from a checkpoint or from scratch",
          .flags = {"run_name", "base_output_directory", "load_parameters_path", "steps", "per_device_batch_size", "max_target_length",
                    "gradient_accumulation_steps", "dtype", "weight_dtype", "mu_dtype", "remat_policy", "z_loss_multiplier", "opt_type", "learning_rate",
                    "lr_schedule_type", "learning_rate_final_fraction", "warmup_steps_fraction", "learning_rate_schedule_steps", "wsd_decay_steps_fraction",
                    "wsd_decay_style", "adam_b1", "adam_b2", "adam_eps", "adam_eps_root", "adam_weight_decay", "adamw_mask", "trainable_parameters_mask",
                    "gradient_clipping_threshold", "dataset_type", "dataset_path", "eval_dataset_path", "held_out_fraction", "train_data_columns",
                    "tokenizer_path", "add_bos", "add_eos", "packing", "grain_packing_type", "max_segments_per_seq", "num_epoch", "enable_data_shuffling",
                    "data_shuffle_seed", "init_weights_seed", "eval_interval", "eval_steps", "eval_start_step", "eval_per_device_batch_size",
                    "target_eval_loss", "abort_on_nan_loss", "abort_on_inf_loss", "enable_checkpointing", "checkpoint_period",
                    "save_checkpoint_on_completion", "max_num_checkpoints_to_keep", "max_shard_size", "metrics_file", "enable_tensorboard", "compat",
                    "vocab_size", "base_emb_dim", "base_num_query_heads", "base_num_kv_heads", "base_mlp_dim", "base_moe_mlp_dim",
                    "base_num_decoder_layers", "first_num_dense_layers", "global_parameter_scale", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim",
                    "qk_rope_head_dim", "v_head_dim", "num_experts", "num_experts_per_tok", "shared_experts", "routed_scaling_factor", "routed_score_func",
                    "routed_bias", "n_routing_groups", "topk_routing_group", "rope_type", "rope_max_timescale", "max_position_embeddings",
                    "original_max_position_embeddings", "rope_factor", "beta_fast", "beta_slow", "mscale", "normalization_layer_epsilon"},
          .run = RunTraining};
}

}  // namespace fathom
