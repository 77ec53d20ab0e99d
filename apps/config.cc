// fathom config: every flag, its value and where it came from.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "apps/command.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/config/flag_table.h"
#include "fathom/config/flag_text.h"

namespace fathom {
namespace {

// A command's name may stand before the flags, so that the flags of its line are shown.
void CheckWords(const RunConfig& config) {
  const std::string name = fmt::format("{}", fmt::join(config.words(), " "));
  const auto named = [&](const Command& command) { return command.name == name; };
  if (!name.empty() && std::ranges::none_of(Commands(), named))
    Throw(ErrorCode::kUsage, "config: unexpected {}; it takes one .yml file first and flags as key=value", name);
}

// What fathom does, and of MaxText's other flags those that were given.
bool IsShown(const RunConfig& config, const std::string& key, const Flag& flag) {
  if (FindFlag(key, "config").role != FlagRole::kOwn) return flag.given;
  return !config.Bool("changed_only") || flag.source != "base.yml";
}

Json ToJson(const FlagValue& value) {
  struct Converter {
    Json operator()(std::monostate) const { return nullptr; }
    Json operator()(bool x) const { return x; }
    Json operator()(int64_t x) const { return x; }
    Json operator()(double x) const { return x; }
    Json operator()(const std::string& x) const { return x; }
    Json operator()(const std::vector<std::string>& x) const { return x; }
  };
  return std::visit(Converter(), value);
}

int RunConfigCommand(const RunConfig& config) {
  CheckWords(config);
  Json result = Json::object();
  std::string table;
  for (const auto& [key, flag] : config.flags()) {
    if (!IsShown(config, key, flag)) continue;
    table += fmt::format("{:<48} {:<32} {}\n", key, FormatFlag(flag.value), flag.source);
    result[key] = {{"value", ToJson(flag.value)}, {"source", flag.source}};
  }
  if (!config.String("json").empty()) WriteOutput(config.String("json"), JsonText(result));
  if (config.String("json") != "-" && config.String("json") != "/dev/stdout") fmt::print("{}", table);
  return 0;
}

std::vector<std::string> OwnFlags() {
  std::vector<std::string> names;
  for (const auto& [name, flag] : Flags()) {
    if (flag.role == FlagRole::kOwn) names.push_back(name);
  }
  return names;
}

}  // namespace

Command ConfigCommand() {
  return {"config", "prints the resolved flags and what set each of them", OwnFlags(), &RunConfigCommand, "[COMMAND]"};
}

}  // namespace fathom
