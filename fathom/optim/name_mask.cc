#include "fathom/optim/name_mask.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <numeric>
#include <regex>

#include "fathom/base/error.h"

namespace fathom {
namespace {

std::regex Compile(std::string_view flag, const std::string& pattern) {
  try {
    return std::regex(pattern, std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error&) {
    Throw(ErrorCode::kUsage, "{}: \"{}\" is not a regular expression; write it as in JavaScript, for example .*indexer.*", flag, pattern);
  }
}

std::string WithSlashes(std::string name) {
  std::replace(name.begin(), name.end(), '.', '/');
  return name;
}

// What of a pattern is likely to stand in a name.
std::string PlainPart(const std::string& pattern) {
  std::string plain;
  for (const char c : pattern) {
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.') plain += c;
  }
  return plain;
}

size_t LongestCommonSubstring(const std::string& a, const std::string& b) {
  std::vector<size_t> previous(b.size() + 1), current(b.size() + 1);
  size_t best = 0;
  for (const char c : a) {
    for (size_t j = 0; j < b.size(); ++j) {
      current[j + 1] = c == b[j] ? previous[j] + 1 : 0;
      best = std::max(best, current[j + 1]);
    }
    std::swap(previous, current);
  }
  return best;
}

std::vector<std::string> NearestNames(const std::string& pattern, const std::vector<std::string>& names) {
  const std::string plain = PlainPart(pattern);
  std::vector<size_t> score(names.size()), order(names.size());
  for (size_t i = 0; i < names.size(); ++i) score[i] = LongestCommonSubstring(plain, names[i]);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return score[a] > score[b]; });
  std::vector<std::string> nearest;
  for (size_t i = 0; i < std::min<size_t>(order.size(), 4); ++i) nearest.push_back(names[order[i]]);
  return nearest;
}

}  // namespace

std::vector<bool> MatchNames(std::string_view flag, const std::vector<std::string>& patterns, const std::vector<std::string>& names) {
  std::vector<bool> matched(names.size(), false);
  for (const std::string& pattern : patterns) {
    const std::regex regex = Compile(flag, pattern);
    bool found = false;
    for (size_t i = 0; i < names.size(); ++i) {
      if (!std::regex_search(names[i], regex) && !std::regex_search(WithSlashes(names[i]), regex)) continue;
      matched[i] = found = true;
    }
    if (!found) {
      Throw(ErrorCode::kUsage, "{}: \"{}\" matches no parameter that this run trains; names that come near: {}", flag, pattern,
            fmt::join(NearestNames(pattern, names), ", "));
    }
  }
  return matched;
}

}  // namespace fathom
