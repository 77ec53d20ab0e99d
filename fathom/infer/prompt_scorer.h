// Logits behind many prompts, in shared passes. What prompts have in common at their beginning is computed once.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "fathom/infer/engine.h"
#include "fathom/infer/prefix_tree.h"

namespace fathom {

class PromptScorer {
 public:
  // by_row as Engine has it. The model outlives the scorer; its capacity is the longest prompt.
  PromptScorer(const MappedModel& model, bool by_row);

  // The beginning of all prompts to come, computed now unless it is already there; it may be empty.
  void SetBeginning(std::span<const int32_t> ids);

  // The logits [V] behind a prompt's k-th scored token, from 0; in order for each prompt, not among prompts.
  using TakeLogits = std::function<void(size_t prompt, int64_t k, std::span<const float> logits)>;
  // Prompts that begin with the beginning and go on. The logits are a function of the model, the beginning and this list: the same bits in
  // every run. Throws Error(kInput) for logits that are not finite.
  void Score(std::span<const ScoredPrompt> prompts, const TakeLogits& take);

 private:
  struct Branch;  // a node of the prefix tree on its way
  class Pass;

  Engine engine_;
  Sequence beginning_;
};

}  // namespace fathom
