// Speculative decoding: the MTP module drafts tokens, the main model judges all of them in one pass. What comes out has the main model's
// distribution, and greedy decoding gives the tokens that it would give alone (Leviathan et al., 2023; Chen et al., 2023).
#pragma once

#include <span>
#include <vector>

#include "fathom/infer/draft_cost.h"
#include "fathom/infer/engine.h"
#include "fathom/infer/sampler.h"

namespace fathom {

// One drafted token, drawn from `draft`, where the truth is `target` (both [V], sums 1): accepted with probability
// min(1, target/draft); else another is drawn from max(target - draft, 0), scaled. Either way the token is distributed as target.
// uniforms: two independent numbers in [0, 1).
struct Verdict {
  int32_t id;
  bool accepted;
};
Verdict JudgeDraft(std::span<const float> target, std::span<const float> draft, int32_t drafted, std::span<const double, 2> uniforms);

class Speculator {
 public:
  // Up to draft_tokens drafts per pass. engine and sampler outlive it; the engine drafts.
  Speculator(Engine& engine, Sampler& sampler, int64_t draft_tokens, uint64_t seed);

  // The tokens that follow `last`, which the engine has not seen yet: 1 to room of them, at places index and on of the answer. Valid until
  // the next call. With a seed a pure function of the answer so far, but for the choice whether to draft at all, which follows the clock.
  std::span<const int32_t> Next(int32_t last, int64_t index, int64_t room);

  int64_t drafted() const { return drafted_; }
  int64_t accepted() const { return accepted_; }
  const DraftCost& cost() const { return cost_; }

 private:
  void PlainPass(int32_t last, int64_t index);
  void DraftingPass(int32_t last, int64_t index, int64_t drafts);
  void Draft(int32_t last, int64_t index, int64_t drafts);

  Engine& engine_;
  Sampler& sampler_;
  int64_t draft_tokens_;
  uint64_t seed_;
  DraftCost cost_;
  std::vector<int32_t> out_, candidates_;  // candidates: the last token, then the drafts
  std::vector<std::vector<float>> draft_distributions_;
  int64_t drafted_ = 0, accepted_ = 0;
};

}  // namespace fathom
