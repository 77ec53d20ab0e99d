#include "fathom/config/flag_yaml.h"

#include <yaml-cpp/yaml.h>

#include <set>

#include "fathom/base/error.h"
#include "fathom/config/flag_text.h"

namespace fathom {
namespace {

YAML::Node Parse(std::string_view text, const std::string& where) {
  try {
    const YAML::Node root = YAML::Load(std::string(text));
    if (!root.IsMap() && !root.IsNull()) Throw(ErrorCode::kUsage, "{}: not a list of `flag: value` lines", where);
    return root;
  } catch (const YAML::Exception& e) {
    Throw(ErrorCode::kUsage, "{}: not valid YAML ({})", where, e.what());
  }
}

std::string Flow(const YAML::Node& node) {
  YAML::Emitter out;
  out.SetSeqFormat(YAML::Flow);
  out.SetMapFormat(YAML::Flow);
  out << node;
  return out.c_str();
}

std::vector<std::string> Items(const YAML::Node& node) {
  std::vector<std::string> items;
  for (const auto& item : node) items.push_back(item.IsScalar() ? item.Scalar() : Flow(item));
  return items;
}

bool IsQuoted(const YAML::Node& node) { return node.Tag() == "!"; }

FlagValue ValueByLook(const YAML::Node& node) {
  if (node.IsNull()) return {};
  if (node.IsSequence()) return Items(node);
  if (IsQuoted(node)) return node.Scalar();
  int64_t whole;
  double real;
  bool boolean;
  if (YAML::convert<int64_t>::decode(node, whole)) return whole;
  if (YAML::convert<double>::decode(node, real)) return real;
  if (YAML::convert<bool>::decode(node, boolean)) return boolean;
  return node.Scalar();
}

FlagValue ValueOfFlag(const FlagSpec& flag, const YAML::Node& node, const std::string& where) {
  if (node.IsNull()) return ReadFlag(flag, "null", where);
  if (node.IsScalar() && !(IsQuoted(node) && flag.type == FlagType::kString)) return ReadFlag(flag, node.Scalar(), where);
  if (node.IsMap() && flag.role != FlagRole::kOwn) return node.size() == 0 ? "" : Flow(node);
  FlagValue value = node.Scalar();
  if (node.IsSequence()) value = Items(node);
  const bool wanted = node.IsSequence() ? flag.type == FlagType::kList : node.IsScalar();
  if (!wanted) Throw(ErrorCode::kUsage, "{}: {}={}: allowed is {}", where, flag.name, Flow(node), flag.AllowedText());
  return value;
}

bool IsGroup(const std::string& key) {
  const auto after = Flags().lower_bound(key + ".");
  return after != Flags().end() && after->first.starts_with(key + ".");
}

// f(key, node) for each line, each key once.
template <class F>
void ForEachLine(const YAML::Node& root, const std::string& where, const F& f) {
  std::set<std::string> seen;
  for (const auto& line : root) {
    if (!line.first.IsScalar()) Throw(ErrorCode::kUsage, "{}: a flag's name must be a word", where);
    const std::string key = line.first.Scalar();
    if (!seen.insert(key).second) Throw(ErrorCode::kUsage, "{}: {} stands twice", where, key);
    f(key, line.second);
  }
}

}  // namespace

NamedValues ReadYamlByLook(std::string_view text, const std::string& where) {
  NamedValues values;
  ForEachLine(Parse(text, where), where,
              [&](const std::string& key, const YAML::Node& node) { values.emplace_back(key, ValueByLook(node)); });
  return values;
}

YamlFlags ReadYamlFlags(std::string_view text, const std::string& where) {
  YamlFlags flags;
  const auto add = [&](const std::string& key, const YAML::Node& node) {
    const auto flag = Flags().find(WithUnderscores(key));
    if (flag == Flags().end()) {
      flags.unknown.push_back(key);
    } else {
      flags.values.emplace_back(flag->first, ValueOfFlag(flag->second, node, where));
    }
  };
  ForEachLine(Parse(text, where), where, [&](const std::string& key, const YAML::Node& node) {
    if (!node.IsMap() || !IsGroup(key)) return add(key, node);
    ForEachLine(node, where, [&](const std::string& inner, const YAML::Node& value) { add(key + "." + inner, value); });
  });
  return flags;
}

}  // namespace fathom
