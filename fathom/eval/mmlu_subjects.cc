#include "fathom/eval/mmlu_subjects.h"

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/base/nearest.h"

namespace fathom {
namespace {

constexpr MmluSubject kSubjects[] = {
    {"abstract_algebra", "math"},
    {"anatomy", "health"},
    {"astronomy", "physics"},
    {"business_ethics", "business"},
    {"clinical_knowledge", "health"},
    {"college_biology", "biology"},
    {"college_chemistry", "chemistry"},
    {"college_computer_science", "computer science"},
    {"college_mathematics", "math"},
    {"college_medicine", "health"},
    {"college_physics", "physics"},
    {"computer_security", "computer science"},
    {"conceptual_physics", "physics"},
    {"econometrics", "economics"},
    {"electrical_engineering", "engineering"},
    {"elementary_mathematics", "math"},
    {"formal_logic", "philosophy"},
    {"global_facts", "other"},
    {"high_school_biology", "biology"},
    {"high_school_chemistry", "chemistry"},
    {"high_school_computer_science", "computer science"},
    {"high_school_european_history", "history"},
    {"high_school_geography", "geography"},
    {"high_school_government_and_politics", "politics"},
    {"high_school_macroeconomics", "economics"},
    {"high_school_mathematics", "math"},
    {"high_school_microeconomics", "economics"},
    {"high_school_physics", "physics"},
    {"high_school_psychology", "psychology"},
    {"high_school_statistics", "math"},
    {"high_school_us_history", "history"},
    {"high_school_world_history", "history"},
    {"human_aging", "health"},
    {"human_sexuality", "culture"},
    {"international_law", "law"},
    {"jurisprudence", "law"},
    {"logical_fallacies", "philosophy"},
    {"machine_learning", "computer science"},
    {"management", "business"},
    {"marketing", "business"},
    {"medical_genetics", "health"},
    {"miscellaneous", "other"},
    {"moral_disputes", "philosophy"},
    {"moral_scenarios", "philosophy"},
    {"nutrition", "health"},
    {"philosophy", "philosophy"},
    {"prehistory", "history"},
    {"professional_accounting", "other"},
    {"professional_law", "law"},
    {"professional_medicine", "health"},
    {"professional_psychology", "psychology"},
    {"public_relations", "politics"},
    {"security_studies", "politics"},
    {"sociology", "culture"},
    {"us_foreign_policy", "politics"},
    {"virology", "health"},
    {"world_religions", "philosophy"},
};
constexpr MmluSubcategory kSubcategories[] = {
    {"physics", "stem"},
    {"chemistry", "stem"},
    {"biology", "stem"},
    {"computer science", "stem"},
    {"math", "stem"},
    {"engineering", "stem"},
    {"history", "humanities"},
    {"philosophy", "humanities"},
    {"law", "humanities"},
    {"politics", "social_sciences"},
    {"culture", "social_sciences"},
    {"economics", "social_sciences"},
    {"geography", "social_sciences"},
    {"psychology", "social_sciences"},
    {"other", "other"},
    {"business", "other"},
    {"health", "other"},
};
constexpr std::string_view kCategories[] = {"stem", "humanities", "social_sciences", "other"};

const MmluSubject* Find(std::string_view name) {
  const auto* found = std::ranges::find(kSubjects, name, &MmluSubject::name);
  return found == std::end(kSubjects) ? nullptr : found;
}

}  // namespace

std::span<const MmluSubject> MmluSubjects() { return kSubjects; }
std::span<const MmluSubcategory> MmluSubcategories() { return kSubcategories; }
std::span<const std::string_view> MmluCategories() { return kCategories; }

std::string_view SubcategoryOf(std::string_view name) {
  const MmluSubject* subject = Find(name);
  FATHOM_CHECK(subject != nullptr, "{} is no subject", name);
  return subject->subcategory;
}

std::string_view CategoryOf(std::string_view name) {
  return std::ranges::find(kSubcategories, SubcategoryOf(name), &MmluSubcategory::name)->category;
}

std::vector<std::string> ChooseMmluSubjects(const std::vector<std::string>& names) {
  std::vector<std::string> all;
  for (const MmluSubject& subject : kSubjects) all.emplace_back(subject.name);
  if (names.empty()) return all;
  for (const std::string& name : names) {
    if (Find(name) == nullptr)
      Throw(ErrorCode::kUsage, "subjects: {} is none of MMLU's {} subjects{}", name, all.size(), DidYouMean(name, all));
  }
  std::erase_if(all, [&](const std::string& name) { return std::ranges::count(names, name) == 0; });
  return all;
}

}  // namespace fathom
