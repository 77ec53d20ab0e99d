#include "fathom/base/json.h"

#include <set>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/file.h"

namespace fathom {
namespace {

// Checks depth and repeated keys while the parser runs, before anything deep is built.
struct Guard {
  const std::string& where;
  int max_depth;
  std::vector<std::set<std::string>> keys;

  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    if (depth > max_depth) Throw(ErrorCode::kInput, "{}: JSON nested deeper than {}", where, max_depth);
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      Throw(ErrorCode::kInput, "{}: key \"{}\" stands twice", where, parsed.get<std::string>());
    }
    return true;
  }
};

}  // namespace

Json ParseJson(std::string_view text, const std::string& where, int max_depth) {
  Guard guard{where, max_depth, {}};
  try {
    return Json::parse(text.begin(), text.end(), [&](int depth, Json::parse_event_t event, Json& parsed) { return guard(depth, event, parsed); });
  } catch (const nlohmann::json::exception& e) {
    Throw(ErrorCode::kInput, "{}: not valid JSON ({})", where, e.what());
  }
}

Json ReadJsonFile(const std::filesystem::path& path, int max_depth) { return ParseJson(ReadTextFile(path), path.string(), max_depth); }

}  // namespace fathom
