// MMLU's subjects and what they are counted under: Hendrycks et al. 2020, the tables of their evaluation code.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct MmluSubject {
  std::string_view name, subcategory;
};
struct MmluSubcategory {
  std::string_view name, category;  // category: a word for lm-evaluation-harness's groups, "stem"
};

std::span<const MmluSubject> MmluSubjects();            // 57, by name
std::span<const MmluSubcategory> MmluSubcategories();   // 17
std::span<const std::string_view> MmluCategories();     // 4
std::string_view SubcategoryOf(std::string_view name);  // of a subject
std::string_view CategoryOf(std::string_view name);     // of a subject

// Those of the names, each once, by name; all if names is empty. Throws Error(kUsage), with the nearest name: no subject of MMLU.
std::vector<std::string> ChooseMmluSubjects(const std::vector<std::string>& names);

}  // namespace fathom
