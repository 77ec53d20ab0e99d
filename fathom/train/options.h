// What the flags say about a training run, checked.
#pragma once

#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "fathom/config/run_config.h"
#include "fathom/model/decoder.h"
#include "fathom/optim/optimizer.h"
#include "fathom/optim/schedule.h"
#include "fathom/parallel/mesh.h"

namespace fathom {

// Low-rank adapters in place of the weights themselves (MaxText's lora.*).
struct LoraOptions {
  bool enabled = false;
  int64_t rank = 0;
  double alpha = 0;
  std::string module_path;        // a regular expression over the modules' names; empty: attention, dense and shared MLPs
  std::filesystem::path restore;  // a PEFT folder to begin with
};

// Text that the model writes on the way.
struct SampleOptions {
  int64_t period = -1;  // steps from one to the next; below 1: none
  int64_t tokens = 0;   // of each, at most
  std::string prompt;   // text to go on from, or of conversations what a user says
  bool add_bos = true;
};

struct TrainOptions {
  std::string run_name;
  std::filesystem::path run_dir;  // <base_output_directory>/<run_name>
  std::filesystem::path load_parameters_path, load_full_state_path;
  int64_t steps = 0;
  int64_t rows = 0, length = 0;  // sequences per micro-batch, tokens per sequence
  int64_t accumulation = 1;      // micro-batches per step
  Mesh mesh;                     // the ranks of the run; rows are of this one, whatever the axes: per_device_batch_size times the ranks is
                                 // the batch, which mesh.row_ranks() share
  DType compute = DType::kBF16, weights = DType::kF32;
  bool fp8_block = false;  // quantization=fp8_block: DeepSeek-V3's recipe
  Remat remat = Remat::kMinimal;
  float z_loss = 0;
  bool lm_loss = true;  // false: the indexers' warm-up
  LayerOptions layers;
  IndexerTraining indexer;   // its factor is indexer_loss_scaling_factor: on the mean over layers and tokens
  BalanceTraining balance;   // its factor is load_balance_loss_weight: on the mean over layers and sequences,
  bool balance_sum = false;  // or on the sum over layers
  float bias_update_rate = 0;
  MtpOptions mtp;           // modules: those that are trained
  double mtp_factor = 0.1;  // of their loss
  bool mtp_own_head = false;
  LoraOptions lora;
  ScheduleConfig schedule;
  OptimizerConfig optimizer;
  double qk_clip = 0;               // threshold of the attention scores; 0: they are not clipped
  bool clips_plain_queries = true;  // the queries of a model without a query latent too, which MaxText leaves out
  bool share_moments = false;       // ranks along data have some rows of the moments each
  std::vector<std::string> adamw_mask, trainable_mask;
  bool norm_of_masked = false;  // what trainable_mask leaves out counts in the clipping norm all the same
  uint64_t init_seed = 0;
  bool abort_on_nan = true, abort_on_inf = true;
  int64_t log_period = 100;                                      // steps between two lines of the log,
  double log_seconds = std::numeric_limits<double>::infinity();  // which comes by then at the latest
  SampleOptions samples;
  // eval
  int64_t eval_rows = 0;  // sequences per batch
  int64_t eval_interval = -1, eval_steps = -1, eval_start_step = 0;
  double target_eval_loss = 0;
  // checkpoints
  bool checkpointing = true, save_on_completion = true;
  bool save_beside = false;                 // steps go on while a checkpoint is written, from a copy
  int64_t checkpoint_period = 0, keep = 0;  // keep 0: all
  int64_t max_shard_size = 0;

  std::filesystem::path checkpoints_dir() const { return run_dir / "checkpoints"; }
  // Whether a checkpoint falls due before the last step, beside which steps go on.
  bool CopiesState() const { return checkpointing && save_beside && checkpoint_period > 0 && checkpoint_period < steps - 1; }
};

// Throws Error(kUsage) naming the flag.
TrainOptions ReadTrainOptions(const RunConfig& config, const Mesh& mesh = {});

}  // namespace fathom
