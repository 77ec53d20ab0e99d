// Three ways to ask a model: the logits of the letters, the likelihood of each choice's text, or an answer that it writes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fathom/base/json.h"
#include "fathom/eval/choice_prompt.h"
#include "fathom/eval/choice_question.h"
#include "fathom/infer/mapped_model.h"
#include "fathom/parallel/comm.h"
#include "fathom/tokenizer/tokenizer.h"

namespace fathom {

enum class ChoiceScoring { kLetters, kContinuations, kGenerated };

struct ChoiceSettings {
  ChoiceScoring scoring = ChoiceScoring::kLetters;
  PromptStyle style = PromptStyle::kOriginal;
  std::string prompt_template;  // kGenerated
  bool add_bos = true;
  int64_t longest_prompt = 0;    // kGenerated, in tokens: longer prompts are cut, as MaxText does; 0: none is
  int64_t longest_sequence = 0;  // kGenerated, prompt and answer together
};

// A subject and what the model is shown for each of its questions.
struct AskedSubject {
  const ChoiceSubject* subject;
  std::vector<std::string> prompts;
};
AskedSubject Ask(const ChoiceSubject& subject, const ChoiceSettings& settings);

class ChoiceScorer {
 public:
  virtual ~ChoiceScorer() = default;
  // Tokenises a subject's questions, before Start; returns the longest sequence that they need. What is given lives as long as the scorer.
  // Throws Error(kInput): kLetters with a tokenizer that cuts a blank and a letter in several ways; Error(kUsage) as GeneratedScorer does.
  virtual int64_t Add(const AskedSubject& asked) = 0;
  // The model's capacity is the longest sequence of all.
  virtual void Start(const MappedModel& model, bool by_row) = 0;
  // Questions [begin, end) of an added subject, by its place among the added ones: a row each with what was measured, "prediction"
  // (null: none), "answer" (letters) and "correct". The bits depend on the subject and this range alone.
  virtual std::vector<Json> Score(size_t added, size_t begin, size_t end) = 0;
};

// host: the ranks of this machine, which all add the same subjects; the first tokenises for them.
std::unique_ptr<ChoiceScorer> MakeChoiceScorer(const ChoiceSettings& settings, const Tokenizer& tokenizer, const Comm& host = {});

// The letter that MaxText's expression finds in a prompt and what was written behind it, as it stands there; "" if none.
std::string FindAnswerLetter(std::string_view text);

}  // namespace fathom
