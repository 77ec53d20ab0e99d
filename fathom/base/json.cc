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

// The library's message without its tag and without the text it read, which may be of any length.
std::string Reason(std::string_view message) {
  const size_t tag = message.find("] "), read = message.find("; last read");
  message = message.substr(0, read);
  return std::string(tag < message.size() ? message.substr(tag + 2) : message);
}

}  // namespace

Json ParseJson(std::string_view text, const std::string& where, int max_depth) {
  Guard guard{where, max_depth, {}};
  try {
    return Json::parse(text.begin(), text.end(),
                       [&](int depth, Json::parse_event_t event, Json& parsed) { return guard(depth, event, parsed); });
  } catch (const nlohmann::json::exception& e) {
    Throw(ErrorCode::kInput, "{}: not valid JSON ({})", where, Reason(e.what()));
  }
}

Json ReadJsonFile(const std::filesystem::path& path, int max_depth) { return ParseJson(ReadTextFile(path), path.string(), max_depth); }

std::string JsonText(const Json& json, int indent) { return json.dump(indent, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace fathom
