// One update of all parameters: gradient norm, clipping, AdamW, SGD or Muon, parameter norm.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/kernels/elementwise/rounding.h"
#include "fathom/optim/muon.h"
#include "fathom/optim/spike_guard.h"
#include "fathom/tensor/arena.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

// kAdamPax keeps its moments bias-corrected (t-dependent decays instead of a division); that is AdamW's update in exact arithmetic,
// and it is computed as AdamW here. kMuon: Muon for the matrices that ask for it, AdamW that looks ahead (as optax's) for the rest.
enum class OptimizerType { kAdamW, kAdamPax, kSgd, kMuon };

// "adamw", "adam_pax", "sgd", "muon". Throws Error(kUsage) with what is allowed.
OptimizerType ParseOptimizerType(std::string_view name);

struct OptimizerConfig {
  OptimizerType type = OptimizerType::kAdamW;
  double b1 = 0.9, b2 = 0.95, eps = 1e-8, eps_root = 0;
  double weight_decay = 0.1;                 // adam_weight_decay; SGD has none
  double gradient_clipping_threshold = 1.0;  // of the global norm; 0: no clipping
  DType mu_dtype = DType::kF32;              // of the first moment: F32 or BF16
  DType nu_dtype = DType::kF32;              // of the second, likewise
  bool stochastic_rounding = false;          // of what is stored as BF16: drawn by seed, step, name and element
  uint64_t seed = 0;
  double muon_beta = 0.95, muon_weight_decay = 0;
  std::optional<double> muon_consistent_rms;
  std::optional<SpikeRule> spikes;  // none: every finite gradient is followed
};

// Contiguous views of the same number of elements; they outlive the optimizer.
struct OptimizerParam {
  std::string name;
  View value;      // F32 or BF16; empty: nothing moves the parameter, but its gradient counts in the norm
  View grad;       // F32
  View bf16_copy;  // BF16, gets the new value; may be empty
  bool decayed = true;
  bool orthogonal = false;                             // a matrix that Muon, if it is the optimizer, moves
  bool counted = true;                                 // in the norms: false where another rank counts it
  int64_t first = 0;                                   // of a whole whose rows ranks divide: the element that these views begin at
  std::shared_ptr<const MatrixRanks> ranks = nullptr;  // those that keep the other parts of such a matrix; null: there are none

  bool moves() const { return !value.empty(); }
};

// Sets `decayed`: false where adamw_mask matches. Throws Error(kUsage) as MatchNames.
void ApplyDecayMask(const std::vector<std::string>& adamw_mask, std::vector<OptimizerParam>& params);

struct OptimizerReport {
  double raw_grad_norm = 0;  // global L2 norm over all parameters that have a gradient
  double grad_norm = 0;      // after clipping
  double param_norm = 0;     // after the update, of what moves
  bool applied = false;      // false: raw_grad_norm was not finite, or this was a spike, and nothing was changed
  bool spike = false;
};

class Optimizer {
 public:
  // Sums over the ranks that have other parts of the parameters; empty: this one has all of them.
  using SumOverRanks = std::function<double(double)>;
  // Allocates the moments (zero) of every parameter that moves; after that a step allocates nothing.
  Optimizer(const OptimizerConfig& config, std::vector<OptimizerParam> params, SumOverRanks sum_over_ranks = {});

  // w of every parameter that moves from its gradient, which stays as it is. loss: the step's, for the rule on spikes. Same bits for any
  // number of threads.
  OptimizerReport Step(double learning_rate, double loss = 0);

  // State for checkpoints: m [any] mu_dtype, v [any] nu_dtype, shaped as the value; none with SGD, no v of what Muon moves.
  struct Moments {
    std::string name;
    View m, v;
  };
  const std::vector<Moments>& moments() const { return moments_; }
  int64_t step_count() const { return step_count_; }  // updates applied so far
  void set_step_count(int64_t n) { step_count_ = n; }
  const std::vector<OptimizerParam>& params() const { return params_; }
  OptimizerType type() const { return config_.type; }
  SpikeGuard* spikes() { return spikes_ ? &*spikes_ : nullptr; }  // null: no rule
  int64_t scratch_bytes() const { return scratch_bytes_; }

 private:
  struct Part {  // of one parameter: what a thread takes at a time
    size_t param;
    int64_t begin, end;
  };
  bool IsMuons(const OptimizerParam& p) const { return config_.type == OptimizerType::kMuon && p.orthogonal && p.moves(); }
  void MakeMoments(const OptimizerParam& p);
  void MakeParts(size_t param);
  void OrderParts();
  double GradNorm();
  void UpdateMatrices(double learning_rate, double grad_scale);
  double UpdateAndParamNorm(double learning_rate, double grad_scale);
  double ParamNorm();
  double PartSquares(const Part& part, const OptimizerParam& p) const;
  template <class F>
  double NormOverParts(const F& squares);
  void UpdatePart(const Part& part, double learning_rate, double grad_scale);
  double SumPartials() const;
  Rounding RoundingOf(const OptimizerParam& p, int64_t begin) const;

  OptimizerConfig config_;
  SumOverRanks sum_over_ranks_;
  std::vector<OptimizerParam> params_;
  std::vector<Tensor> storage_;
  std::vector<Moments> moments_;
  std::vector<int64_t> moments_of_;  // index into moments_ by parameter, -1: none
  std::vector<Part> parts_;
  std::vector<size_t> order_;     // of the parts: those of one thread, by OwnRange of each parameter, one behind the other
  std::vector<double> partials_;  // one sum of squares per part
  int64_t part_count_ = 0;
  double update_bytes_ = 0;  // read or written by an update, Muon's aside
  int64_t step_count_ = 0;
  std::optional<SpikeGuard> spikes_;
  int64_t scratch_bytes_ = 0;
  std::optional<Arena> scratch_;  // of Muon
};

}  // namespace fathom
