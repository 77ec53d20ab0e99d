#include "fathom/config/run_config.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>

#include "fathom/base/env.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/nearest.h"
#include "fathom/config/built_in_files.h"
#include "fathom/config/flag_text.h"
#include "fathom/config/flag_yaml.h"
#include "fathom/config/run_rules.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char* kCommandLine = "command line";
constexpr int kMaxParents = 16;

using Values = std::map<std::string, Flag, std::less<>>;

struct Arguments {
  std::string config_file;
  Values values;
  std::vector<std::string> words;
};

// A yml that has been read: what it sets and where it lies (empty for a file of the program's own).
struct ConfigFile {
  std::string name;
  fs::path folder;
  NamedValues values;
};

bool IsYml(std::string_view text) { return text.ends_with(".yml") || text.ends_with(".yaml"); }

std::optional<ConfigFile> ReadBuiltIn(const std::string& name) {
  for (const BuiltInFile& file : BuiltInFiles()) {
    if (file.name == name) return ConfigFile{name, "", ReadYamlFlags(file.text, name)};
  }
  return std::nullopt;
}

ConfigFile ReadFromDisk(const fs::path& path) {
  const std::string text = ReadTextFile(path, size_t{1} << 24);
  return {path.string(), path.parent_path().empty() ? fs::path(".") : path.parent_path(), ReadYamlFlags(text, path.string())};
}

// A path that is not there stands for the built-in file of that name: MaxText's guide writes src/maxtext/configs/base.yml.
ConfigFile ReadConfigFile(const fs::path& path) {
  if (!fs::exists(path)) {
    if (auto built_in = ReadBuiltIn(path.filename().string())) return *std::move(built_in);
  }
  return ReadFromDisk(path);
}

const FlagValue* FindValue(const NamedValues& values, std::string_view key) {
  const auto found = std::find_if(values.begin(), values.end(), [&](const auto& value) { return value.first == key; });
  return found == values.end() ? nullptr : &found->second;
}

// A copy of base.yml states every default, and wants none of them more than base.yml does.
bool IsCopyOfBase(const ConfigFile& file) { return 2 * file.values.size() > Flags().size(); }

// The file's parents first, so that it overrides them.
void ApplyConfigFile(RunConfig& config, const ConfigFile& file, int depth = 0) {
  if (depth > kMaxParents)
    Throw(ErrorCode::kUsage, "{}: more than {} files inherit from each other; is base_config a circle?", file.name, kMaxParents);
  const FlagValue* parent = FindValue(file.values, "base_config");
  const std::string path = parent != nullptr ? std::get<std::string>(*parent) : "";
  if (!path.empty()) ApplyConfigFile(config, ReadConfigFile(file.folder / path), depth + 1);
  const bool copy = IsCopyOfBase(file);
  for (const auto& [key, value] : file.values) {
    config.Set(key, value, file.name, !copy || value != Flags().find(key)->second.default_value);
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
  std::vector<std::string> names;
  for (const auto& [name, flag] : Flags()) names.push_back(name);
  spdlog::warn("environment variable {} sets no flag (the nearest is {}): ignored", variable, NearestName(key, names));
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

std::vector<std::string> ModelNames() {
  std::vector<std::string> names;
  for (const BuiltInFile& file : BuiltInFiles()) {
    if (file.name.starts_with("models/")) names.emplace_back(file.name.substr(7, file.name.size() - 11));
  }
  return names;
}

std::string Join(const std::vector<std::string>& words) {
  std::string joined;
  for (const std::string& word : words) joined += (joined.empty() ? "" : ", ") + word;
  return joined;
}

// Beside the config file, one folder up, then among the program's own.
ConfigFile ReadModelFile(const std::string& name, const fs::path& config_folder) {
  if (IsYml(name)) return ReadFromDisk(name);
  const std::string file = "models/" + name + ".yml";
  if (!config_folder.empty()) {
    for (const fs::path& path : {config_folder / file, config_folder / ".." / file}) {
      if (fs::exists(path)) return ReadFromDisk(path);
    }
  }
  if (auto built_in = ReadBuiltIn(file)) return *std::move(built_in);
  Throw(ErrorCode::kUsage, "model_name={}: unknown model; did you mean {}? (known: {})", name, NearestName(name, ModelNames()),
        Join(ModelNames()));
}

const Flag* FindGiven(const Values& line, const Values& environment, std::string_view key) {
  if (const auto found = environment.find(key); found != environment.end()) return &found->second;
  if (const auto found = line.find(key); found != line.end()) return &found->second;
  return nullptr;
}

// What the model's file sets may be repeated on the command line, but only override_model_config lets it be changed.
void CheckOverrides(const ConfigFile& model, const Values& line, const Values& environment, bool may_override) {
  if (may_override) return;
  for (const auto& [key, value] : model.values) {
    const Flag* given = FindGiven(line, environment, key);
    const bool from_environment = environment.contains(key);
    if (given == nullptr || (given->value == value && !from_environment)) continue;
    Throw(ErrorCode::kUsage, "{}: {}={} differs from {} in {}: give override_model_config=true to change the model", given->source, key,
          FormatFlag(given->value), FormatFlag(value), model.name);
  }
}

std::string WithoutInstruct(std::string name) {
  constexpr std::string_view kSuffix = "-Instruct";
  if (name.ends_with(kSuffix)) name.resize(name.size() - kSuffix.size());
  return name;
}

void ApplyModel(RunConfig& config, const fs::path& config_folder, const Values& line, const Values& environment) {
  const auto current = [&](std::string_view key) {
    const Flag* given = FindGiven(line, environment, key);
    return given != nullptr ? *given : config.flags().find(key)->second;
  };
  const Flag given = current("model_name");
  const std::string name = WithoutInstruct(std::get<std::string>(given.value));
  config.Set("model_name", name, given.source, given.given);
  if (name.empty() || name == "default") return;
  const ConfigFile model = ReadModelFile(name, config_folder);
  CheckOverrides(model, line, environment, std::get<bool>(current("override_model_config").value));
  for (const auto& [key, value] : model.values) config.Set(key, value, model.name);
}

void ApplyGiven(RunConfig& config, const Values& values) {
  for (const auto& [key, flag] : values) {
    if (key != "model_name") config.Set(key, flag.value, flag.source, flag.given);
  }
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

RunConfig RunConfig::Resolve(const std::vector<std::string>& arguments) {
  RunConfig config;
  for (const auto& [name, flag] : Flags()) config.Set(name, flag.default_value, "base.yml");
  const Arguments line = ParseArguments(arguments);
  const Values environment = ReadEnvironment();
  for (const auto& [key, flag] : environment) {
    if (line.values.contains(key)) Throw(ErrorCode::kUsage, "{}: {} is also on the command line: keep one of them", flag.source, key);
  }
  fs::path folder;
  if (!line.config_file.empty()) {
    const ConfigFile file = ReadConfigFile(line.config_file);
    folder = file.folder;
    ApplyConfigFile(config, file);
  }
  ApplyModel(config, folder, line.values, environment);
  ApplyGiven(config, line.values);
  ApplyGiven(config, environment);
  config.words_ = line.words;
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

void RunConfig::Set(std::string_view key, FlagValue value, std::string source, bool given) {
  flags_.insert_or_assign(std::string(key), Flag{std::move(value), std::move(source), given});
}

}  // namespace fathom
