#include "fathom/eval/choice_prompt.h"

#include <fmt/format.h>

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/tokenizer/char_class.h"

namespace fathom {

const char* const kMaxTextTemplate =
    "The following are multiple choice questions (with answers) about {subject}.\n\n{question}\n{choices}\nAnswer:";

namespace {

// Without the white space around it, as Python's str.strip has it.
std::string_view Strip(std::string_view text) {
  const CharClassTable& table = CharClassTable::Get();
  const auto is_space = [&](ClassifiedChar c) { return (c.classes & kSpace) != 0; };
  while (!text.empty()) {
    const ClassifiedChar c = table.At(text.data(), text.data() + text.size());
    if (!is_space(c)) break;
    text.remove_prefix(c.length);
  }
  for (;;) {
    size_t begin = text.size();
    while (begin > 0 && (static_cast<unsigned char>(text[--begin]) & 0xc0) == 0x80) {
    }
    if (text.empty() || !is_space(table.At(text.data() + begin, text.data() + text.size()))) return text;
    text = text.substr(0, begin);
  }
}

std::string Spaced(std::string name) {
  std::ranges::replace(name, '_', ' ');
  return name;
}

std::string ChoiceLines(const ChoiceQuestion& q) {
  std::string lines;
  for (size_t i = 0; i < q.choices.size(); ++i)
    lines += fmt::format("{}{}. {}", i == 0 ? "" : "\n", ChoiceLetter(static_cast<int64_t>(i)), q.choices[i]);
  return lines;
}

std::string Header(const ChoiceSubject& subject, std::string_view what, PromptStyle style) {
  if (subject.name.empty()) return fmt::format("The following are {} (with answers).\n\n", what);
  return fmt::format("The following are {} (with answers) about {}{}.\n\n", what, style == PromptStyle::kOriginal ? " " : "",
                     Spaced(subject.name));
}

}  // namespace

PromptStyle ParsePromptStyle(const std::string& name) {
  FATHOM_CHECK(name == "original" || name == "lm_eval" || name == "maxtext", "prompt style {}", name);
  return name == "original" ? PromptStyle::kOriginal : name == "lm_eval" ? PromptStyle::kLmEval : PromptStyle::kMaxText;
}

std::string LetterPrompt(const ChoiceSubject& subject, const ChoiceQuestion& question, PromptStyle style) {
  const auto ask = [&](const ChoiceQuestion& q) {
    return fmt::format("{}\n{}\nAnswer:", style == PromptStyle::kLmEval ? Strip(q.question) : q.question, ChoiceLines(q));
  };
  std::string prompt = Header(subject, "multiple choice questions", style);
  for (const ChoiceQuestion& example : subject.examples) prompt += fmt::format("{} {}\n\n", ask(example), ChoiceLetter(example.answer));
  return prompt + ask(question);
}

std::string ContinuationPrompt(const ChoiceSubject& subject, const ChoiceQuestion& question) {
  const auto ask = [](const ChoiceQuestion& q) { return fmt::format("Question: {}\nAnswer:", Strip(q.question)); };
  std::string prompt = Header(subject, "questions", PromptStyle::kLmEval);
  for (const ChoiceQuestion& example : subject.examples)
    prompt += fmt::format("{} {}\n\n", ask(example), example.choices[static_cast<size_t>(example.answer)]);
  return prompt + ask(question);
}

std::string TemplatePrompt(const std::string& text, const ChoiceSubject& subject, const ChoiceQuestion& question) {
  std::string prompt;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t plain = std::min(rest.find_first_of("{}\\"), rest.size());
    prompt += rest.substr(0, plain);
    rest.remove_prefix(plain);
    if (rest.empty()) break;
    const auto take = [&](std::string_view word, std::string_view value) {
      if (!rest.starts_with(word)) return false;
      prompt += value;
      rest.remove_prefix(word.size());
      return true;
    };
    if (take("{{", "{") || take("}}", "}") || take("\\n", "\n") || take("\\", "\\")) continue;
    if (take("{subject}", Spaced(subject.name)) || take("{question}", question.question) || take("{choices}", ChoiceLines(question)))
      continue;
    Throw(ErrorCode::kUsage, "prompt_template: \"{}\": {{subject}}, {{question}} and {{choices}} are known; a brace is written twice",
          rest.substr(0, rest.find('}') == rest.npos ? 12 : rest.find('}') + 1));
  }
  return prompt;
}

}  // namespace fathom
