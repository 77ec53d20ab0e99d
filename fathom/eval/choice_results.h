// Accuracies of tests with choices, and the shape in which lm-evaluation-harness reports them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fathom/base/json.h"

namespace fathom {

// Right answers of the questions of one subject.
struct SubjectScore {
  std::string name;
  int64_t available = 0, asked = 0, correct = 0;
  std::optional<int64_t> correct_norm;  // by likelihood per character
};

struct Accuracy {
  int64_t questions = 0;
  double value = 0;
  std::optional<double> error;  // standard error; none for a single question
};

// Every question counts once. The standard error is that of a mean for one subject, lm-evaluation-harness's pooled one for several:
// variances within the subjects, weighted by their questions less one.
Accuracy AccuracyOf(std::span<const SubjectScore* const> subjects, bool norm);

// A named group of subjects.
struct ScoreGroup {
  std::string name, shown;
  std::vector<const SubjectScore*> members;
};
// What MMLU counts its subjects under; groups without a member are left out.
std::vector<ScoreGroup> MmluCategoryGroups(const std::vector<SubjectScore>& scores);
std::vector<ScoreGroup> MmluSubcategoryGroups(const std::vector<SubjectScore>& scores);

// "results", "groups", "group_subtasks", "n-shot", "n-samples", "higher_is_better" and "subcategories", as lm-evaluation-harness names
// them: tasks "mmlu", "mmlu_stem", "mmlu_<subject>", each with "acc,none" and "acc_stderr,none" ("N/A" where there is none).
Json MmluJson(const std::vector<SubjectScore>& scores, int64_t shots);
// One task of this name.
Json TaskJson(const std::string& name, const SubjectScore& score, int64_t shots);

// Subjects, subcategories, categories and all, with standard errors in per cent.
std::string MmluTable(const std::vector<SubjectScore>& scores);
// One line: name, accuracies, questions.
std::string ScoreLine(const std::string& name, std::span<const SubjectScore* const> subjects);

}  // namespace fathom
