#include "fathom/config/run_config.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>

#include "fathom/base/env.h"
#include "fathom/base/error.h"
#include "fathom/base/nearest.h"
#include "fathom/config/config_file.h"
#include "fathom/config/flag_text.h"
#include "fathom/config/run_rules.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char *kCommandLine = "command line", *kDefault = "base.yml";
constexpr int kMaxParents = 16;

using Values = std::map<std::string, Flag, std::less<>>;

struct Arguments {
  std::string config_file;
  Values values;
  std::vector<std::string> words;
};

const FlagValue* FindValue(const NamedValues& values, std::string_view key) {
  const auto found = std::find_if(values.begin(), values.end(), [&](const auto& value) { return value.first == key; });
  return found == values.end() ? nullptr : &found->second;
}

// What a copy of base.yml says without asking for it stays base.yml's default. Lists of MaxText's that mean nothing here, such as its
// sharding rules, differ from version to version.
bool IsNews(CopyKind copy, const FlagSpec& flag, const FlagValue& value) {
  if (copy == CopyKind::kNone) return true;
  if (copy == CopyKind::kOwn) return value != flag.default_value;
  return value != flag.maxtext_default && !(flag.role == FlagRole::kAccepted && flag.type == FlagType::kList);
}

// The file's parents first, so that it overrides them.
void ApplyConfigFile(RunConfig& config, const ConfigFile& file, int depth = 0) {
  if (depth > kMaxParents)
    Throw(ErrorCode::kUsage, "{}: more than {} files inherit from each other; is base_config a circle?", file.name, kMaxParents);
  const FlagValue* parent = FindValue(file.flags.values, "base_config");
  const std::string path = parent != nullptr ? std::get<std::string>(*parent) : "";
  if (!path.empty()) ApplyConfigFile(config, ReadParent(file, path), depth + 1);
  const CopyKind copy = CopyKindOf(file);
  for (const auto& [key, value] : file.flags.values) {
    const FlagSpec& flag = Flags().find(key)->second;
    const bool is_news = IsNews(copy, flag, value);
    config.Set(key, is_news ? value : flag.default_value, file.name, is_news);
  }
  for (const std::string& key : file.flags.unknown) config.AddUnknown(key);
}

// Of a command.
void ApplyDefaults(RunConfig& config, const std::string& defaults) {
  if (defaults.empty()) return;
  const ConfigFile file = ReadConfigFile(defaults);
  for (const auto& [key, value] : file.flags.values) {
    if (!config.Given(key)) config.Set(key, value, file.name);
  }
}

void AddArgument(Arguments& arguments, const FlagSpec& flag, std::string_view text) {
  FlagValue value = ParseFlag(flag, text, kCommandLine);
  const auto before = arguments.values.find(flag.name);
  if (flag.repeats && before != arguments.values.end()) {
    auto items = std::get<std::vector<std::string>>(before->second.value);
    const auto& more = std::get<std::vector<std::string>>(value);
    items.insert(items.end(), more.begin(), more.end());
    value = items;
  }
  arguments.values[flag.name] = Flag{value, kCommandLine, true};
}

// The value of "--key" without '=': the next argument; a bool may stand alone. Returns how many arguments it took.
size_t AddDashed(Arguments& arguments, std::string_view name, const std::string* next) {
  const FlagSpec& flag = FindFlag(name, kCommandLine);
  if (flag.type == FlagType::kBool && (next == nullptr || !IsBoolText(*next))) {
    AddArgument(arguments, flag, "true");
    return 1;
  }
  if (next == nullptr || next->starts_with("--"))
    Throw(ErrorCode::kUsage, "command line: --{} needs a value: {}", name, flag.AllowedText());
  AddArgument(arguments, flag, *next);
  return 2;
}

// "key=value": key begins like a name and holds nothing that only paths and sentences have.
bool IsAssignment(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == text.npos || equals == 0) return false;
  return std::all_of(text.begin(), text.begin() + equals,
                     [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-' || c == '.'; });
}

Arguments ParseArguments(const std::vector<std::string>& texts) {
  Arguments arguments;
  for (size_t i = 0; i < texts.size();) {
    const std::string& text = texts[i];
    const size_t dashes = text.starts_with("--") ? 2 : 0;
    const std::string_view rest = std::string_view(text).substr(dashes);
    if (IsAssignment(rest)) {
      const size_t equals = rest.find('=');
      AddArgument(arguments, FindFlag(rest.substr(0, equals), kCommandLine), rest.substr(equals + 1));
      ++i;
    } else if (dashes > 0) {
      i += AddDashed(arguments, rest, i + 1 < texts.size() ? &texts[i + 1] : nullptr);
    } else if (IsYml(text) && arguments.config_file.empty() && arguments.words.empty()) {
      arguments.config_file = text;
      ++i;
    } else {
      arguments.words.push_back(text);
      ++i;
    }
  }
  return arguments;
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// A FATHOM_ variable that is no flag is likely a typing error, but other programs may own it: a warning, not an error.
void WarnUnknown(const std::string& variable, const std::string& key) {
  spdlog::warn("environment variable {} sets no flag: ignored{}", variable, DidYouMean(key, FlagNames()));
}

Values ReadEnvironment() {
  Values values;
  for (const std::string prefix : {"M_", "FATHOM_"}) {
    for (const auto& [variable, text] : EnvWithPrefix(prefix)) {
      const std::string key = Lower(variable.substr(prefix.size()));
      const auto flag = Flags().find(key);
      const std::string where = "environment " + variable;
      if (flag == Flags().end()) {
        if (prefix == "FATHOM_" && key != "simd") WarnUnknown(variable, key);
        continue;
      }
      if (flag->second.type == FlagType::kList)
        Throw(ErrorCode::kUsage, "{}: a list can't be set there: use {}= on the command line", where, key);
      values[key] = Flag{ParseFlag(flag->second, text, where), where, true};
    }
  }
  return values;
}

const Flag* FindGiven(const Values& line, const Values& environment, std::string_view key) {
  if (const auto found = environment.find(key); found != environment.end()) return &found->second;
  if (const auto found = line.find(key); found != line.end()) return &found->second;
  return nullptr;
}

// What the model's file sets may be repeated on the command line, but only override_model_config lets it be changed.
void CheckOverrides(const ConfigFile& model, const Values& line, const Values& environment, bool may_override) {
  if (may_override) return;
  for (const auto& [key, value] : model.flags.values) {
    const Flag* given = FindGiven(line, environment, key);
    const bool from_environment = environment.contains(key);
    if (given == nullptr || (given->value == value && !from_environment)) continue;
    Throw(ErrorCode::kUsage, "{}: {}={} differs from {} in {}: give override_model_config=true to change the model", given->source, key,
          FormatFlag(given->value), FormatFlag(value), model.name);
  }
}

// The name under which the model's file was found.
std::string NameOf(const ConfigFile& model, const std::string& asked) {
  return IsYml(asked) ? asked : fs::path(model.name).stem().string();
}

void ApplyModel(RunConfig& config, const fs::path& config_folder, const Values& line, const Values& environment) {
  const auto current = [&](std::string_view key) {
    const Flag* given = FindGiven(line, environment, key);
    return given != nullptr ? *given : config.flags().find(key)->second;
  };
  const Flag given = current("model_name");
  const std::string& name = std::get<std::string>(given.value);
  config.Set("model_name", name, given.source, given.given);
  if (name.empty() || name == "default") return;
  const ConfigFile model = ReadModelFile(name, config_folder);
  config.Set("model_name", NameOf(model, name), given.source, given.given);
  CheckOverrides(model, line, environment, std::get<bool>(current("override_model_config").value));
  for (const auto& [key, value] : model.flags.values) config.Set(key, value, model.name);
  for (const std::string& key : model.flags.unknown) config.AddUnknown(key);
}

void ApplyGiven(RunConfig& config, const Values& values) {
  for (const auto& [key, flag] : values) {
    if (key != "model_name") config.Set(key, flag.value, flag.source, flag.given);
  }
}

// Values of files, once the last of them has been read: what another one overrides need not suit.
void CheckFileValues(const RunConfig& config) {
  for (const auto& [key, flag] : config.flags()) CheckFlag(Flags().find(key)->second, flag.value, flag.source);
}

template <class T>
const T& Get(const RunConfig& config, std::string_view key) {
  const auto found = config.flags().find(key);
  FATHOM_CHECK(found != config.flags().end(), "no flag {}", key);
  const T* value = std::get_if<T>(&found->second.value);
  FATHOM_CHECK(value != nullptr, "flag {} has another type", key);
  return *value;
}

}  // namespace

RunConfig RunConfig::Resolve(const std::vector<std::string>& arguments, const std::string& defaults) {
  RunConfig config;
  for (const auto& [name, flag] : Flags()) config.Set(name, flag.default_value, kDefault);
  const Arguments line = ParseArguments(arguments);
  const Values environment = ReadEnvironment();
  for (const auto& [key, flag] : environment) {
    if (line.values.contains(key)) Throw(ErrorCode::kUsage, "{}: {} is also on the command line: keep one of them", flag.source, key);
  }
  fs::path folder;
  if (!line.config_file.empty()) {
    CheckLocal(line.config_file, line.config_file);
    const ConfigFile file = ReadConfigFile(line.config_file);
    folder = file.folder;
    ApplyConfigFile(config, file);
  }
  ApplyDefaults(config, defaults);
  ApplyModel(config, folder, line.values, environment);
  ApplyGiven(config, line.values);
  ApplyGiven(config, environment);
  config.words_ = line.words;
  CheckFileValues(config);
  DeriveFlags(config);
  CheckFlagsTogether(config);
  return config;
}

bool RunConfig::Bool(std::string_view key) const { return Get<bool>(*this, key); }
int64_t RunConfig::Int(std::string_view key) const { return Get<int64_t>(*this, key); }
double RunConfig::Float(std::string_view key) const {
  const auto found = flags_.find(key);
  if (found != flags_.end() && std::holds_alternative<int64_t>(found->second.value)) return static_cast<double>(Int(key));
  return Get<double>(*this, key);
}
const std::string& RunConfig::String(std::string_view key) const { return Get<std::string>(*this, key); }
const std::vector<std::string>& RunConfig::Strings(std::string_view key) const { return Get<std::vector<std::string>>(*this, key); }

bool RunConfig::IsNull(std::string_view key) const {
  const auto found = flags_.find(key);
  FATHOM_CHECK(found != flags_.end(), "no flag {}", key);
  return std::holds_alternative<std::monostate>(found->second.value);
}

bool RunConfig::Given(std::string_view key) const {
  const auto found = flags_.find(key);
  FATHOM_CHECK(found != flags_.end(), "no flag {}", key);
  return found->second.given;
}

void RunConfig::AddUnknown(std::string key) {
  if (std::find(unknown_.begin(), unknown_.end(), key) == unknown_.end()) unknown_.push_back(std::move(key));
}

void RunConfig::Set(std::string_view key, FlagValue value, std::string source, bool given) {
  flags_.insert_or_assign(std::string(key), Flag{std::move(value), std::move(source), given});
}

}  // namespace fathom
