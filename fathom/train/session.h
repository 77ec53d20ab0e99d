// A model in training: weights, their bf16 copies, gradients, moments and activation memory, all there before step 0.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fathom/data/batch.h"
#include "fathom/model/decoder.h"
#include "fathom/optim/optimizer.h"
#include "fathom/train/treatment.h"

namespace fathom {

struct StepReport {
  LossSums sums;
  double loss = 0;          // what was minimised: cross entropy and z-loss over the total weight, plus the other terms
  double lm_loss = 0;       // cross entropy (z-loss included, as MaxText reports it) over the total weight
  double balance_loss = 0;  // load_balance_loss_weight times the mean (or sum) over layers, MaxText's moe_lb_loss
  double mtp_loss = 0;      // mtp_loss_scaling_factor times the mean over what all MTP modules predict
  double indexer_kl = 0;    // mean over layers and tokens, without its factor
  double indexer_loss = 0;
  bool trains_lm = true;  // false in the indexers' warm-up: lm_loss is then none
  OptimizerReport optimizer;
};

class TrainSession {
 public:
  // params: weights as loaded or initialised; those that the run moves are in options.weights and memory of their own, the others may be
  // mapped from a file, in any dtype that products take. Throws Error(kUsage) for masks that match nothing.
  TrainSession(const ModelConfig& config, const TrainOptions& options, DecoderParams params);

  // One update from rows of a batch, in micro-batches of options.rows rows; equal to one batch of all rows (gradients are weighted by
  // tokens, not by micro-batch). A gradient that is not finite changes nothing: report.optimizer.applied is false.
  StepReport Step(const Batch& batch, double learning_rate);
  // Gradients alone, added to grads(): for checks. scale, mtp_scale: factors on the summed losses of the main model and of the MTP modules.
  LossSums Gradients(const Batch& batch, double scale, double mtp_scale = 0);
  // What the last Gradients or Step counted per layer: the main layers, then the MTP modules.
  const LayerTotals& totals() const { return totals_; }
  bool drops_tokens() const { return options_.layers.experts.kind == ExpertRun::kCapacity; }
  void ZeroGradients();
  // Sums over the batch without gradients.
  LossSums Evaluate(const Batch& batch);

  // Activations kept for the backward, and everything else that a pass allocates.
  struct PassMemory {
    int64_t saved = 0, scratch = 0;
  };
  // What the largest pass of this session takes, counted by running it under a PlanScope: full rows of one document each, and as many rows
  // of expert work as there can be.
  const PassMemory& counted() const { return counted_; }
  // The most that passes have taken so far.
  PassMemory taken() const { return {saved_.peak(), scratch_.peak()}; }

  // Rows of a batch as the decoder takes them; valid until the next call.
  TokenBatch Slice(const Batch& batch, int64_t row_begin, int64_t row_end);

  const Decoder& decoder() const { return decoder_; }
  const Treatments& treatments() const { return treatments_; }
  DecoderParams& params() { return params_; }
  DecoderParams& grads() { return grads_; }
  // What passes read: params(), or their bf16 copies where there are some.
  DecoderParams& compute_params() { return compute_; }
  Optimizer& optimizer() { return *optimizer_; }

 private:
  PassMemory CountPasses();
  void MakeTotals();
  void ListSegments(const Batch& batch, int64_t begin, int64_t end);
  int64_t CountedTokens(const Batch& batch) const;  // those of documents; padding too if it counts
  // What the indexers' and the balance losses are means over: layers and tokens, layers and sequences.
  double IndexerTerms(const Batch& batch) const;
  double BalanceTerms(const Batch& batch) const;
  LossOptions LossOf(const Batch& batch, double scale, double mtp_scale) const;
  int64_t BalancedLayers() const;
  void UpdateRouterBiases();

  TrainOptions options_;
  Decoder decoder_;
  DecoderParams params_;
  Treatments treatments_;
  DecoderParams compute_, grads_;
  std::unique_ptr<Optimizer> optimizer_;
  std::vector<View> gradients_;  // those that exist
  struct CountedBias {
    size_t layer;
    float* values;  // [E]
  };
  std::vector<CountedBias> counted_biases_;
  std::vector<Segment> segments_;
  std::vector<double> layer_sums_;  // memory of totals_
  std::vector<int64_t> layer_counts_;
  LayerTotals totals_;
  PassMemory counted_;  // by all of the above
  Arena saved_, scratch_;
};

// The MTP modules whose activations are kept at the same time: those that are trained, or those up to the one that an eval looks at.
int64_t MtpModules(const TrainOptions& options);

}  // namespace fathom
