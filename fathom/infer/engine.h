// Passes of a model over several sequences at once: their cache, and scratch memory.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "fathom/base/trace_window.h"
#include "fathom/infer/drafter.h"
#include "fathom/infer/mapped_model.h"
#include "fathom/infer/sequence.h"

namespace fathom {

// What the slowest of the ranks that decode together says: what is decided by it all of them decide alike. Collective.
double SlowestOf(const LayerGroups& groups, double seconds);

// Thrown by a pass that was to stop.
struct Stopped {};

class Engine {
 public:
  // The cache holds so many sequences of the model's capacity. by_row: prompts are computed in arithmetic that does not depend on how they
  // are cut, whatever their length (docs/numerics.md). The model outlives the engine.
  Engine(const MappedModel& model, int64_t sequences, bool by_row = false);

  const MappedModel& model() const { return model_; }
  const ModelConfig& config() const { return model_.config(); }
  bool by_row() const { return by_row_; }
  CachePool& pool() { return pool_; }
  int64_t CacheBytes() const { return pool_.NumBytes(); }

  // Passes from here on are the steps of `window`, which outlives the engine.
  void Trace(TraceWindow& window) { window_ = &window; }

  // What one sequence takes part in a pass with: tokens that it appends, at least one, and how many of the last want logits.
  struct Part {
    Sequence* sequence;
    std::span<const int32_t> ids;
    int64_t logits;
    bool is_prompt;
  };
  // One pass; each sequence at most once. Logits [n,V] F32 of the rows that want them, in order; valid until the next call. Rows have the
  // bits that they have alone, unless a part of a prompt is longer than kSharedPart: that one had better be alone. Throws Error(kResource)
  // if the cache is full.
  ConstView Append(std::span<const Part> parts);
  // Asked before each layer of a pass, which true ends: it throws Stopped, and its sequences are of no use any more.
  void StopWhen(std::function<bool()> stops) { stops_ = std::move(stops); }
  // The sequence's last `count` tokens were not to be: of the last pass.
  void TakeBack(Sequence& sequence, int64_t count);

  // Drafts, only of a model that drafts; see Drafter.
  ConstView FirstDrafts(std::span<const NextToken> next, int64_t drafts);
  ConstView NextDrafts(std::span<const NextToken> drafted);

  // Tokens that a pass takes at most; also what may wait for the module.
  static constexpr int64_t kPassTokens = 512;
  // A part of a prompt up to so many tokens is computed by row, which is no slower, and may share a pass; longer ones take the fastest
  // arithmetic.
  static constexpr int64_t kSharedPart = 64;

 private:
  Ctx Context(Arithmetic arithmetic) {
    return {.saved = saved_, .scratch = scratch_, .compute = model_.compute(), .arithmetic = arithmetic, .groups = model_.groups()};
  }
  void Observe(Ctx& ctx, std::span<const Part> parts, ConstView hidden);

  const MappedModel& model_;
  bool by_row_;
  CachePool pool_;
  std::function<bool()> stops_;
  Arena saved_, scratch_;
  Tensor logits_;  // [n,V] F32
  std::optional<Drafter> drafter_;
  TraceWindow* window_ = nullptr;
  int64_t passes_ = 0;
};

}  // namespace fathom
