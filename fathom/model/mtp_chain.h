// The chain of a model's MTP modules in training and evaluation: tokens rolled within documents, one pooled loss, gradients into the
// main model (docs/layers/mtp.md).
#pragma once

#include <vector>

#include "fathom/model/mtp.h"

namespace fathom {

// Tokens, targets and weights one module further on: each position gets what the next one of its document has; 0 at a document's end and
// in padding. Overwrites ids, targets, weights [T]; they may be the arrays that `from` views.
void RollWithinSegments(const TokenBatch& from, std::span<int32_t> ids, std::span<int32_t> targets, std::span<float> weights);

// Weight of all targets that the first `modules` modules are measured on: what their summed loss is divided by.
double MtpWeight(const TokenBatch& batch, int64_t modules);

class MtpChain {
 public:
  MtpChain(const ModelConfig& config, const LayerOptions& options);
  int64_t size() const { return std::ssize(modules_); }
  const Mtp& module(int64_t k) const { return modules_[static_cast<size_t>(k)]; }

  struct Inputs {
    const TokenBatch& batch;
    const RopeTable& rope;
    MtpOptions options;
    ConstView h;  // [T,D] F32: the main model's residual stream after its last layer
  };

  // Adds the gradient of options.modules modules' loss to dh [T,D] F32 and to grads, and returns the sums.
  CrossEntropySums ForwardBackward(Ctx& ctx, const DecoderParams& p, const Inputs& in, const LayerTerms& terms, Remat remat, View dh,
                                   DecoderParams& grads) const;

  // The indexers' warm-up: adds the gradients of options.modules modules' indexers to grads, and nothing else.
  void LearnIndexers(Ctx& ctx, const DecoderParams& p, const Inputs& in, const LayerTerms& terms, DecoderParams& grads) const;

  // How often module options.eval_module predicts what the main model predicts one module earlier in time, as MaxText measures it: best [T]
  // are the main model's most likely tokens. Adds to the two sums of `sums`.
  void Compare(Ctx& ctx, const DecoderParams& p, const Inputs& in, std::span<const int32_t> best, LossSums& sums) const;

  // Logits [T,V] F32 of the last of options.modules modules, overwritten: at position t for token t + modules + 1 of the document.
  void Logits(Ctx& ctx, const DecoderParams& p, const Inputs& in, View logits) const;

  // The state [T,D] F32 that the module above is fed: h itself, or normed in scratch.
  ConstView State(Ctx& ctx, const HeadParams& head, MtpInput input, ConstView h) const;

 private:
  struct Link;  // what is kept of one module
  void ForwardLinks(Ctx& ctx, const DecoderParams& p, const Inputs& in, Remat remat, std::span<Link> links) const;
  Mtp::Inputs LinkInputs(Ctx& ctx, const DecoderParams& p, const Inputs& in, Remat remat, std::span<const Link> links, size_t k) const;
  ConstView Output(Ctx& ctx, const DecoderParams& p, const Inputs& in, std::span<float> weights) const;
  Link AllocateLink(Arena& arena, DType compute, const Mtp& module, int64_t tokens, Remat remat, const LayerGroups& groups) const;
  CrossEntropySums BackwardHead(Ctx& ctx, const MtpParams& p, const Link& link, float scale, View dh, MtpParams& grad) const;
  void BackwardState(Ctx& ctx, const HeadParams& head, MtpInput input, ConstView h, ConstView d_state, View dh, HeadGrads grad) const;

  int64_t hidden_;
  Head head_;
  std::vector<Mtp> modules_;
};

}  // namespace fathom
