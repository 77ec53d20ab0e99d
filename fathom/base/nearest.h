// "Did you mean": the known name nearest to a mistyped one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// The candidate with the smallest edit distance (insert, delete, replace, swap of neighbours) to name; the first of equals; "" without
// candidates.
std::string NearestName(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace fathom
