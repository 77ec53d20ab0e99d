#include "fathom/eval/choice_prompt.h"

#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/eval/mmlu_data.h"

namespace fathom {
namespace {

const std::filesystem::path kData = std::filesystem::path(FATHOM_TEST_DATA) / "mmlu";

// prompts.jsonl: the first question of three subjects as the original's code, lm-evaluation-harness and MaxText ask it, five examples
// before.
std::map<std::string, Json> Golden() {
  std::map<std::string, Json> rows;
  std::istringstream lines(ReadTextFile(kData / "prompts.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json row = ParseJson(line, "prompts.jsonl");
    rows[row["subject"].get<std::string>()] = row;
  }
  return rows;
}

std::vector<ChoiceSubject> Subjects(int64_t examples) {
  return ReadMmlu({.dir = kData, .subjects = {"abstract_algebra", "nutrition", "world_religions"}, .examples = examples, .limit = 1});
}

TEST(ChoicePrompt, FiveExamplesAsOthersShowThem) {
  const auto golden = Golden();
  for (const ChoiceSubject& s : Subjects(5)) {
    const Json& row = golden.at(s.name);
    EXPECT_EQ(LetterPrompt(s, s.questions[0], PromptStyle::kOriginal), row["prompt"].get<std::string>());
    EXPECT_EQ(LetterPrompt(s, s.questions[0], PromptStyle::kLmEval), row["prompt_lm_eval"].get<std::string>());
    EXPECT_EQ(ChoiceLetter(s.questions[0].answer), row["answer"].get<std::string>());
  }
}

TEST(ChoicePrompt, MaxTextsWithoutExamples) {
  const auto golden = Golden();
  for (const ChoiceSubject& s : Subjects(0)) {
    const std::string wanted = golden.at(s.name)["prompt_maxtext_zero_shot"].get<std::string>();
    EXPECT_EQ(LetterPrompt(s, s.questions[0], PromptStyle::kMaxText), wanted);
    EXPECT_EQ(TemplatePrompt(kMaxTextTemplate, s, s.questions[0]), wanted);
  }
}

TEST(ChoicePrompt, Continuations) {
  const ChoiceQuestion one{"One?", {"yes", "no"}, 1};
  EXPECT_EQ(ContinuationPrompt({"world_religions", {one}, {}, 0}, {" \u00a0Two?\n\t", {"a", "b"}, 0}),
            "The following are questions (with answers) about world religions.\n\nQuestion: One?\nAnswer: no\n\nQuestion: Two?\nAnswer:");
}

TEST(ChoicePrompt, ATestWithoutSubject) {
  EXPECT_EQ(LetterPrompt({}, {"Q?", {"a", "b", "c"}, 0}, PromptStyle::kOriginal),
            "The following are multiple choice questions (with answers).\n\nQ?\nA. a\nB. b\nC. c\nAnswer:");
}

TEST(ChoicePrompt, Templates) {
  const ChoiceSubject s{"formal_logic", {}, {}, 0};
  const ChoiceQuestion q{"Q{x}?", {"a", "b"}, 0};
  EXPECT_EQ(TemplatePrompt("{{{subject}}}\\n{question}|{choices}\\t", s, q), "{formal logic}\nQ{x}?|A. a\nB. b\\t");
  for (const char* broken : {"{answer}", "{", "a } b"}) {
    try {
      TemplatePrompt(broken, s, q);
      FAIL() << broken;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      EXPECT_NE(std::string(e.what()).find("prompt_template"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace fathom
