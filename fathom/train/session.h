// A model in training: weights, their bf16 copies, gradients, moments and activation memory, all there before step 0.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fathom/base/plan_scope.h"
#include "fathom/data/batch.h"
#include "fathom/model/decoder.h"
#include "fathom/optim/optimizer.h"
#include "fathom/optim/qk_clip.h"
#include "fathom/train/data_shares.h"
#include "fathom/train/gradient_sums.h"
#include "fathom/train/placement.h"
#include "fathom/train/split_layers.h"

namespace fathom {

struct StepReport {
  LossSums sums;
  double loss = 0;          // what was minimised: cross entropy and z-loss over the total weight, plus the other terms
  double lm_loss = 0;       // cross entropy (z-loss included, as MaxText reports it) over the total weight
  double balance_loss = 0;  // load_balance_loss_weight times the mean (or sum) over layers, MaxText's moe_lb_loss
  double mtp_loss = 0;      // mtp_loss_scaling_factor times the mean over what all MTP modules predict
  double indexer_kl = 0;    // mean over layers and tokens, without its factor
  double indexer_loss = 0;
  std::optional<double> max_attention_logit;  // of all heads; with QK-clip
  bool trains_lm = true;                      // false in the indexers' warm-up: lm_loss is then none
  OptimizerReport optimizer;
};

// A batch, or with several ranks all their rows of it.
struct BatchCounts {
  double targets = 0;      // tokens whose weight is not 0
  double mtp_targets = 0;  // what the MTP modules predict
  double tokens = 0;       // of documents; padding too if it counts
  double rows = 0;
};

// Full rows of one document each: longer documents take more memory than short ones.
Batch FullBatch(int64_t rows, int64_t length);

// With options.mesh one rank of several, all of which make the same calls: each with its rows of every batch, its parts of the parameters,
// gradients and moments; what is reported and how the parameters move is of the whole batch and the whole model.
class TrainSession {
 public:
  // params: weights as loaded or initialised; those that the run moves are in options.weights and memory of their own, the others may be
  // mapped from a file, in any dtype that products take; of each the part that Placement says. Throws Error(kUsage) for masks that match
  // nothing.
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
  // The same where routers spread the rows of ranks that share the experts evenly.
  const PassMemory& expected() const { return expected_; }
  // The most that passes have taken so far.
  PassMemory taken() const { return {saved_.peak(), scratch_.peak()}; }

  // Rows of a batch as the decoder takes them, where ranks share the sequences this rank's tokens of them; valid until the next call.
  TokenBatch Slice(const Batch& batch, int64_t row_begin, int64_t row_end);

  const Decoder& decoder() const { return decoder_; }
  const Treatments& treatments() const { return placement_.treatments(); }
  const Placement& placement() const { return placement_; }
  const Mesh& mesh() const { return options_.mesh; }
  DecoderParams& params() { return params_; }
  // What this rank keeps of them.
  DecoderParams& grads() { return grads_; }
  // What passes read: params(), or their bf16 copies where there are some, and the memory in which split layers are made whole.
  DecoderParams& compute_params() { return rounded_; }
  // What sums of gradients over ranks take.
  int64_t SumBytes() const { return sums_->NumBytes(); }
  int64_t SplitBytes() const { return shares_.NumBytes() + (weights_ ? weights_->NumBytes() + split_grads_->NumBytes() : 0); }
  Optimizer& optimizer() { return *optimizer_; }

 private:
  PassMemory CountPasses(PlanScope::Rows rows);
  void MakeTotals();
  void ListSegments(const Batch& batch, int64_t begin, int64_t end, std::vector<Segment>& segments) const;
  int64_t CountedTokens(const Batch& batch) const;
  BatchCounts Count(const Batch& batch);
  // What the indexers' and the balance losses are means over: layers and tokens, layers and sequences.
  double IndexerTerms(const BatchCounts& counts) const;
  double BalanceTerms(const BatchCounts& counts) const;
  LossOptions LossOf(const BatchCounts& counts, double scale, double mtp_scale) const;
  Ctx Context() { return {saved_, scratch_, options_.compute, options_.fp8_block, Arithmetic::kFastest, groups_}; }
  LossSums SumOverRanks(const LossSums& mine) const;
  LossSums Passes(const Batch& batch, const LossOptions& loss, bool summed);
  int64_t BalancedLayers() const;
  void UpdateRouterBiases();
  void ListClipped();
  void ClipQueriesAndKeys(StepReport& report);
  struct ClippedParam {
    const ParamSpec* param;
    ClippedMatrix matrix;
  };
  double Clip(const ClippedParam& clipped);

  TrainOptions options_;
  Decoder decoder_;
  LayerGroups groups_;
  Courier row_courier_;
  std::unique_ptr<Beside> expert_rows_;  // rows that travel to experts; null: there is one rank
  DecoderParams params_;
  Placement placement_;
  DecoderParams rounded_, grads_;  // bf16 copies (or params_) and gradients of what is kept
  Courier courier_;
  std::unique_ptr<SplitLayers> weights_, split_grads_;
  DataShares shares_;
  DecoderParams compute_, whole_grads_;  // what passes read and add to: the same, with split layers made whole
  std::unique_ptr<GradientSums> sums_;
  std::unique_ptr<Optimizer> optimizer_;
  std::vector<View> gradients_;  // those that exist
  struct CountedBias {
    size_t layer;
    float* values;  // [E]
  };
  std::vector<CountedBias> counted_biases_;
  std::vector<ClippedParam> clipped_;
  // Lists of the rows that a pass reads.
  struct RowLists {
    std::vector<Segment> segments;
    TokenBatch whole;  // and of those this rank's part, where ranks share the sequences:
    std::vector<int32_t> ids, targets, positions;
    std::vector<float> weights;
    std::vector<Segment> own_segments;
  };
  TokenBatch WholeRows(const Batch& batch, int64_t row_begin, int64_t row_end, RowLists& lists);
  TokenBatch OwnRows(const Batch& batch, int64_t row_begin, int64_t row_end, RowLists& lists);
  // Micro-batches of a pass: one, or where ranks share the layers one for each of these ranks to work at.
  std::span<const TokenBatch> MicroBatches(const Batch& batch, int64_t row_begin, int64_t row_end);
  std::vector<RowLists> lists_;  // of the micro-batches
  std::vector<TokenBatch> micro_;
  std::vector<double> layer_sums_;  // memory of totals_
  std::vector<int64_t> layer_counts_;
  std::vector<float> max_logits_;
  LayerTotals totals_;
  PassMemory counted_, expected_;  // by all of the above
  Arena saved_, scratch_;
};

// Does Muon, if it is the optimizer, move it? Every matrix but embedding and head, as MaxText has it.
bool IsOrthogonal(const ParamSpec& param);

// Micro-batches into which the rows of a pass are divided where ranks share the layers: of as many rows each.
int64_t MicroBatchCount(const Mesh& mesh, int64_t rows);

// The MTP modules whose activations are kept at the same time: those that are trained, or those up to the one that an eval looks at.
int64_t MtpModules(const TrainOptions& options);

}  // namespace fathom
