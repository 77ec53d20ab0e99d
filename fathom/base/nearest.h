// "Did you mean": the known name nearest to a mistyped one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// The candidate with the smallest edit distance (insert, delete, replace, swap of neighbours) to name; the first of equals; "" if none
// is near: more than a fifth of the letters, and more than one, would have to change.
std::string NearestName(std::string_view name, const std::vector<std::string>& candidates);

// "; did you mean X?", or "" if none is near.
std::string DidYouMean(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace fathom
