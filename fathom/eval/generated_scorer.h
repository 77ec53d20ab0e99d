// MaxText's way to ask: the model writes until its text holds a letter where an answer would stand (benchmarks/mmlu/mmlu_eval.py).
#pragma once

#include <optional>

#include "fathom/eval/choice_scorer.h"
#include "fathom/infer/engine.h"

namespace fathom {

class GeneratedScorer final : public ChoiceScorer {
 public:
  GeneratedScorer(const ChoiceSettings& settings, const Tokenizer& tokenizer, const Comm& host)
      : settings_(settings), tokenizer_(tokenizer), host_(host) {}
  // Throws Error(kUsage): a prompt that leaves no room for an answer.
  int64_t Add(const AskedSubject& asked) override;
  void Start(const MappedModel& model, bool by_row) override;
  std::vector<Json> Score(size_t added, size_t begin, size_t end) override;

 private:
  struct Tokenised {
    const AskedSubject* asked;
    std::vector<std::vector<int32_t>> prompts;
  };
  int64_t NewTokens(int64_t prompt) const;

  ChoiceSettings settings_;
  const Tokenizer& tokenizer_;
  Comm host_;
  std::vector<Tokenised> tokenised_;
  std::optional<Engine> engine_;
};

}  // namespace fathom
