// What a model is asked. The letters' styles are those of the three evaluations that people compare with, byte for byte.
#pragma once

#include <string>

#include "fathom/eval/choice_question.h"

namespace fathom {

enum class PromptStyle {
  kOriginal,  // hendrycks/test: two blanks before the subject
  kLmEval,    // lm-evaluation-harness: one blank, the question without the blanks around it
  kMaxText,   // MaxText's benchmarks/mmlu: one blank
};
// "original", "lm_eval", "maxtext"; anything else is a bug.
PromptStyle ParsePromptStyle(const std::string& name);

// The subject's examples with their letters, then the question with its choices by letter, up to "Answer:".
std::string LetterPrompt(const ChoiceSubject& subject, const ChoiceQuestion& question, PromptStyle style);

// The same without the choices, the examples answered by their text: lm-evaluation-harness's mmlu_continuation, up to "Answer:".
// A choice follows as " " and its text.
std::string ContinuationPrompt(const ChoiceSubject& subject, const ChoiceQuestion& question);

// A template's {subject}, {question} and {choices} (lines "A. text"); "{{" and "}}" are braces, \n a new line. Throws Error(kUsage):
// another word in braces, a brace alone.
std::string TemplatePrompt(const std::string& text, const ChoiceSubject& subject, const ChoiceQuestion& question);
extern const char* const kMaxTextTemplate;

}  // namespace fathom
