#include "apps/diagnosis.h"

#include <fmt/format.h>

#include <algorithm>

namespace fathom {

void PrintTried(const std::vector<TriedFault>& tried, const std::optional<TriedFault>& cause) {
  fmt::print("\nmax KL divergence that is left with a known fault built in:\n");
  for (const TriedFault& t : tried)
    fmt::print("  {:<24} {:>10.3e}  {}\n", t.name, t.max_kl, t.within_the_bars ? "within the bars" : "MISSED");
  if (!cause) {
    fmt::print("cause: none of these faults alone explains the difference\n");
    return;
  }
  fmt::print("cause: {}: on the other side {}\n", cause->name, cause->what);
  const auto others = std::ranges::count_if(tried, [&](const TriedFault& t) { return t.within_the_bars && t.name != cause->name; });
  if (others > 0) fmt::print("{} more within the bars, with more left: narrower bars would tell them apart\n", others);
}

Json TriedJson(const std::vector<TriedFault>& tried, const std::optional<TriedFault>& cause) {
  Json list = Json::array();
  for (const TriedFault& t : tried) list.push_back({{"cause", t.name}, {"max_kl", t.max_kl}});
  return {{"tried", std::move(list)}, {"cause", cause ? Json(cause->name) : Json(nullptr)}};
}

}  // namespace fathom
