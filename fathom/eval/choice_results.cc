#include "fathom/eval/choice_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "fathom/eval/mmlu_subjects.h"

namespace fathom {
namespace {

// The variance of a subject's answers, each 0 or 1, as a sample, times its questions less one.
double SquaresAroundMean(const SubjectScore& s, int64_t correct) {
  const double p = static_cast<double>(correct) / static_cast<double>(s.asked);
  return static_cast<double>(s.asked) * p * (1 - p);
}

Json ErrorJson(const Accuracy& a) { return a.error ? Json(*a.error) : Json("N/A"); }

Json EntryOf(const std::string& alias, std::span<const SubjectScore* const> subjects) {
  const Accuracy acc = AccuracyOf(subjects, false);
  Json entry = {{"alias", alias}, {"acc,none", acc.value}, {"acc_stderr,none", ErrorJson(acc)}};
  if (!subjects.front()->correct_norm) return entry;
  const Accuracy norm = AccuracyOf(subjects, true);
  entry["acc_norm,none"] = norm.value;
  entry["acc_norm_stderr,none"] = ErrorJson(norm);
  return entry;
}

std::vector<const SubjectScore*> Pointers(const std::vector<SubjectScore>& scores) {
  std::vector<const SubjectScore*> all;
  for (const SubjectScore& s : scores) all.push_back(&s);
  return all;
}

ScoreGroup GroupWhere(std::string name, std::string shown, const std::vector<SubjectScore>& scores, const auto& belongs) {
  ScoreGroup group{std::move(name), std::move(shown), {}};
  for (const SubjectScore& s : scores) {
    if (belongs(s.name)) group.members.push_back(&s);
  }
  return group;
}

std::string Spaced(std::string_view name) {
  std::string text(name);
  std::ranges::replace(text, '_', ' ');
  return text;
}

void AddTask(const std::string& task, const SubjectScore& s, int64_t shots, Json& json) {
  const SubjectScore* one = &s;
  json["results"][task] = EntryOf(task, {&one, 1});
  json["n-shot"][task] = shots;
  json["n-samples"][task] = {{"original", s.available}, {"effective", s.asked}};
  json["higher_is_better"][task] = {{"acc", true}};
  if (s.correct_norm) json["higher_is_better"][task]["acc_norm"] = true;
}

std::string Percent(const Accuracy& a) {
  return fmt::format("{:6.2f} {}", 100 * a.value, a.error ? fmt::format("± {:5.2f}", 100 * *a.error) : std::string(7, ' '));
}

}  // namespace

Accuracy AccuracyOf(std::span<const SubjectScore* const> subjects, bool norm) {
  int64_t asked = 0, correct = 0;
  double squares = 0;
  for (const SubjectScore* s : subjects) {
    const int64_t right = norm ? *s->correct_norm : s->correct;
    asked += s->asked;
    correct += right;
    squares += SquaresAroundMean(*s, right);
  }
  Accuracy a{asked, static_cast<double>(correct) / static_cast<double>(asked), {}};
  const int64_t freedom = asked - std::ssize(subjects);
  if (freedom > 0) a.error = std::sqrt(squares / static_cast<double>(freedom) / static_cast<double>(asked));
  return a;
}

std::vector<ScoreGroup> MmluCategoryGroups(const std::vector<SubjectScore>& scores) {
  std::vector<ScoreGroup> groups;
  for (const std::string_view c : MmluCategories())
    groups.push_back(GroupWhere(fmt::format("mmlu_{}", c), Spaced(c), scores, [&](const std::string& s) { return CategoryOf(s) == c; }));
  std::erase_if(groups, [](const ScoreGroup& g) { return g.members.empty(); });
  return groups;
}

std::vector<ScoreGroup> MmluSubcategoryGroups(const std::vector<SubjectScore>& scores) {
  std::vector<ScoreGroup> groups;
  for (const MmluSubcategory& c : MmluSubcategories())
    groups.push_back(
        GroupWhere(std::string(c.name), std::string(c.name), scores, [&](const std::string& s) { return SubcategoryOf(s) == c.name; }));
  std::erase_if(groups, [](const ScoreGroup& g) { return g.members.empty(); });
  return groups;
}

Json MmluJson(const std::vector<SubjectScore>& scores, int64_t shots) {
  Json json;
  for (const SubjectScore& s : scores) AddTask("mmlu_" + s.name, s, shots, json);
  json["results"]["mmlu"] = EntryOf("mmlu", Pointers(scores));
  json["group_subtasks"]["mmlu"] = Json::array();
  for (const ScoreGroup& group : MmluCategoryGroups(scores)) {
    json["results"][group.name] = EntryOf(group.name, group.members);
    json["group_subtasks"]["mmlu"].push_back(group.name);
    for (const SubjectScore* s : group.members) json["group_subtasks"][group.name].push_back("mmlu_" + s->name);
  }
  for (const auto& [name, members] : json["group_subtasks"].items()) json["groups"][name] = json["results"][name];
  for (const ScoreGroup& group : MmluSubcategoryGroups(scores)) json["subcategories"][group.name] = EntryOf(group.name, group.members);
  return json;
}

Json TaskJson(const std::string& name, const SubjectScore& score, int64_t shots) {
  Json json;
  AddTask(name, score, shots, json);
  return json;
}

std::string ScoreLine(const std::string& name, std::span<const SubjectScore* const> subjects) {
  const Accuracy acc = AccuracyOf(subjects, false);
  std::string line = fmt::format("{:<40} {}", name, Percent(acc));
  if (subjects.front()->correct_norm) line += "   " + Percent(AccuracyOf(subjects, true));
  return line + fmt::format(" {:>7}\n", acc.questions);
}

std::string MmluTable(const std::vector<SubjectScore>& scores) {
  const bool norm = !scores.empty() && scores.front().correct_norm.has_value();
  std::string table =
      fmt::format("{:<40} {:>14}{} {:>9}\n", "", "accuracy, %", norm ? fmt::format("{:>17}", "acc_norm, %") : "", "questions");
  const auto add = [&](const std::string& indent, const std::vector<ScoreGroup>& groups) {
    for (const ScoreGroup& g : groups) table += ScoreLine(indent + g.shown, g.members);
  };
  for (const SubjectScore& s : scores) {
    const SubjectScore* one = &s;
    table += ScoreLine(Spaced(s.name), {&one, 1});
  }
  table += "\nby subcategory\n";
  add("  ", MmluSubcategoryGroups(scores));
  table += "\nby category\n";
  add("  ", MmluCategoryGroups(scores));
  return table + "\n" + ScoreLine("all", Pointers(scores));
}

}  // namespace fathom
