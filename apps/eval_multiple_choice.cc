// fathom eval multiple_choice: a user's own questions.
#include <fmt/format.h>

#include <algorithm>

#include "apps/command.h"
#include "apps/eval_choices.h"
#include "apps/json_rows.h"
#include "fathom/base/error.h"

namespace fathom {
namespace {

// 0 for the first choice, or "A".
int64_t ReadAnswer(const Json& answer, int64_t choices, const std::string& where) {
  int64_t index = -1;
  if (answer.is_number_integer()) index = answer.get<int64_t>();
  if (answer.is_string() && answer.get<std::string>().size() == 1) index = answer.get<std::string>()[0] - 'A';
  if (index < 0 || index >= choices)
    Throw(ErrorCode::kInput, "{}: the answer is {}: a whole number from 0 to {} is needed, or a letter from A to {}", where, answer.dump(),
          choices - 1, ChoiceLetter(choices - 1));
  return index;
}

ChoiceQuestion ReadQuestion(const Json& row, const std::string& where) {
  const auto field = [&](const char* name, bool ok) {
    if (!ok)
      Throw(ErrorCode::kInput, "{}: \"{}\": an object with \"question\", \"choices\" (two to {} texts) and \"answer\" is needed", where,
            name, kMostChoices);
  };
  field("question", row.is_object() && row.contains("question") && row["question"].is_string());
  const Json choices = row.value("choices", Json());
  field("choices", choices.is_array() && choices.size() >= 2 && choices.size() <= kMostChoices &&
                       std::ranges::all_of(choices, [](const Json& c) { return c.is_string(); }));
  field("answer", row.contains("answer"));
  field("subject", !row.contains("subject") || row["subject"].is_string());
  return {row["question"].get<std::string>(), choices.get<std::vector<std::string>>(),
          ReadAnswer(row["answer"], std::ssize(choices), where)};
}

// Questions by "subject", in the order in which the subjects first appear.
std::vector<ChoiceSubject> ReadFiles(const std::vector<std::string>& paths) {
  std::vector<ChoiceSubject> subjects;
  const auto add = [&](std::string_view line, const std::string& where) {
    const Json row = ParseJson(line, where);
    ChoiceQuestion question = ReadQuestion(row, where);
    const std::string name = row.value("subject", "");
    auto subject = std::ranges::find(subjects, name, &ChoiceSubject::name);
    if (subject == subjects.end()) subject = subjects.insert(subjects.end(), {.name = name});
    subject->questions.push_back(std::move(question));
  };
  for (const std::string& path : paths) ForEachLine(path, add);
  if (subjects.empty()) Throw(ErrorCode::kInput, "{}: no question in it", fmt::join(paths, ", "));
  return subjects;
}

std::string Quoted(const ChoiceSubject& subject) { return subject.name.empty() ? "" : fmt::format(" of subject \"{}\"", subject.name); }

// The first rows become examples and are not asked.
void TakeOwnExamples(ChoiceSubject& subject, int64_t shots) {
  auto& rows = subject.questions;
  if (std::ssize(rows) <= shots) {
    Throw(ErrorCode::kInput,
          "num_shots={}: the first {} rows{} would be the examples, and there are {} in all; name a file of examples (shots_input=)", shots,
          shots, Quoted(subject), rows.size());
  }
  subject.examples.assign(rows.begin(), rows.begin() + shots);
  rows.erase(rows.begin(), rows.begin() + shots);
}

// Those of the same subject, or if there are none, those that name no subject.
void TakeExamples(ChoiceSubject& subject, const std::vector<ChoiceSubject>& from, int64_t shots, const std::string& path) {
  auto found = std::ranges::find(from, subject.name, &ChoiceSubject::name);
  if (found == from.end()) found = std::ranges::find(from, "", &ChoiceSubject::name);
  const int64_t there = found == from.end() ? 0 : std::ssize(found->questions);
  if (there < shots) Throw(ErrorCode::kInput, "{}: {} examples{}; num_shots={} needs more", path, there, Quoted(subject), shots);
  subject.examples.assign(found->questions.begin(), found->questions.begin() + shots);
}

std::vector<ChoiceSubject> ReadSubjects(const RunConfig& config, int64_t shots) {
  if (config.Strings("input").empty())
    Throw(ErrorCode::kUsage, "eval multiple_choice needs input= (JSON lines with question, choices, answer)");
  std::vector<ChoiceSubject> subjects = ReadFiles(config.Strings("input"));
  const std::string& path = config.String("shots_input");
  const std::vector<ChoiceSubject> from = path.empty() ? std::vector<ChoiceSubject>() : ReadFiles({path});
  const auto limit = static_cast<size_t>(config.Int("limit"));
  for (ChoiceSubject& subject : subjects) {
    if (path.empty()) TakeOwnExamples(subject, shots);
    if (!path.empty()) TakeExamples(subject, from, shots, path);
    subject.available = std::ssize(subject.questions);
    if (limit > 0 && limit < subject.questions.size()) subject.questions.resize(limit);
  }
  return subjects;
}

SubjectScore Sum(const std::vector<SubjectScore>& scores) {
  SubjectScore all;
  for (const SubjectScore& s : scores) {
    all.available += s.available;
    all.asked += s.asked;
    all.correct += s.correct;
    if (s.correct_norm) all.correct_norm = all.correct_norm.value_or(0) + *s.correct_norm;
  }
  return all;
}

int RunRank(const RunConfig& config, const Mesh& mesh) {
  const ChoiceSettings settings = ReadChoiceSettings(config);
  const int64_t shots = ReadShots(config, settings.scoring, config.String("shots_input").empty() ? 0 : config.Int("num_shots"));
  const auto subjects = ReadSubjects(config, shots);
  const auto scores = EvaluateChoices(config, "eval multiple_choice", subjects, settings, mesh);
  const SubjectScore all = Sum(scores);
  Json json = TaskJson("multiple_choice", all, shots);
  std::string table;
  for (const SubjectScore& s : scores) {
    if (s.name.empty()) continue;
    json.merge_patch(TaskJson("multiple_choice_" + s.name, s, shots));
    const SubjectScore* one = &s;
    table += ScoreLine(s.name, {&one, 1});
  }
  const SubjectScore* one = &all;
  ReportChoices(config, table + ScoreLine("all", {&one, 1}), std::move(json), mesh);
  return 0;
}

int Run(const RunConfig& config) { return RunRank(config, {}); }

}  // namespace

Command EvalMultipleChoiceCommand() {
  Command command{.name = "eval multiple_choice",
                  .summary = "accuracy on questions with choices of your own (JSON lines)",
                  .flags = ChoiceFlags(),
                  .run = Run,
                  .run_rank = RunRank};
  command.flags.insert(command.flags.end(), {"input", "num_shots", "shots_input"});
  return command;
}

}  // namespace fathom
