#include "apps/same_flags.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/config/flag_text.h"

namespace fathom {
namespace {

// The command and its flags, a line each.
std::string Asked(const std::string& command, const RunConfig& config) {
  static const std::set<std::string> own = {"threads", "numa", "log_level", "ranks", "launcher", "restart"};
  std::string text = command + "\n";
  for (const std::string& word : config.words()) text += word + "\n";
  for (const auto& [name, flag] : config.flags()) {
    if (!own.contains(name)) text += name + "=" + FormatFlag(flag.value) + "\n";
  }
  return text;
}

// The line in which two texts begin to differ.
std::string_view LineAt(std::string_view text, size_t at) {
  const size_t begin = at == 0 ? 0 : text.rfind('\n', at - 1) + 1;
  return text.substr(begin, text.find('\n', begin) - begin);
}

}  // namespace

void CheckSameFlags(const Comm& world, const std::string& command, const RunConfig& config) {
  if (world.size() == 1) return;
  const std::vector<std::string> asked = AllGatherText(world, Asked(command, config));
  for (size_t r = 1; r < asked.size(); ++r) {
    if (asked[r] == asked[0]) continue;
    const auto at = static_cast<size_t>(std::ranges::mismatch(asked[0], asked[r]).in1 - asked[0].begin());
    Throw(ErrorCode::kUsage, "rank {} is asked for {}, rank 0 for {}: give all ranks the same command line, environment and files", r,
          LineAt(asked[r], at), LineAt(asked[0], at));
  }
}

}  // namespace fathom
