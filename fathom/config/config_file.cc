#include "fathom/config/config_file.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/nearest.h"
#include "fathom/config/built_in_files.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool IsInMaxText(const fs::path& path) {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(path, error);
  return Lower((error ? path : whole).generic_string()).find("/maxtext/configs/") != std::string::npos;
}

std::optional<ConfigFile> ReadBuiltIn(const std::string& name) {
  for (const BuiltInFile& file : BuiltInFiles()) {
    if (file.name == name) return ConfigFile{name, "", ReadYamlFlags(file.text, name)};
  }
  return std::nullopt;
}

ConfigFile ReadFromDisk(const fs::path& path) {
  const std::string text = ReadTextFile(path, size_t{1} << 24);
  ConfigFile file{path.string(), path.parent_path().empty() ? fs::path(".") : path.parent_path(), ReadYamlFlags(text, path.string()),
                  IsInMaxText(path)};
  // A version of MaxText with other flags is still MaxText's.
  const bool knows_them = file.is_maxtext || CopyKindOf(file) == CopyKind::kMaxText;
  if (!knows_them && !file.flags.unknown.empty()) FindFlag(file.flags.unknown.front(), path.string());
  return file;
}

std::vector<std::string> ModelNames() {
  std::vector<std::string> names;
  for (const BuiltInFile& file : BuiltInFiles()) {
    if (file.name.starts_with("models/")) names.emplace_back(file.name.substr(7, file.name.size() - 11));
  }
  return names;
}

// What lies over what is below: a key that both have has the upper value.
void LayOver(const NamedValues& upper, NamedValues& lower) {
  for (const auto& [key, value] : upper) {
    const auto found = std::find_if(lower.begin(), lower.end(), [&](const auto& x) { return x.first == key; });
    if (found == lower.end()) {
      lower.emplace_back(key, value);
    } else {
      found->second = value;
    }
  }
}

ConfigFile ReadModelFromDisk(const fs::path& path, const std::string& name_of_built_in) {
  ConfigFile file = ReadFromDisk(path);
  if (!file.is_maxtext) return file;
  if (auto built_in = ReadBuiltIn(name_of_built_in)) {
    LayOver(file.flags.values, built_in->flags.values);
    file.flags.values = std::move(built_in->flags.values);
  }
  return file;
}

// Names on the hub, in lower case and without what the versions of one architecture differ in.
struct Alias {
  std::string_view alias, model;
};
constexpr Alias kAliases[] = {{"deepseek-v2-lite", "deepseek2-16b"},  {"deepseek2-lite", "deepseek2-16b"},
                              {"deepseek-v2", "deepseek2-236b"},      {"deepseek2", "deepseek2-236b"},
                              {"deepseek-v2.5", "deepseek2-236b"},    {"deepseek2.5", "deepseek2-236b"},
                              {"deepseek-v3", "deepseek3-671b"},      {"deepseek3", "deepseek3-671b"},
                              {"deepseek-r1", "deepseek3-671b"},      {"deepseek3-r1", "deepseek3-671b"},
                              {"deepseek-r1-zero", "deepseek3-671b"}, {"deepseek-v3.1", "deepseek3-671b"},
                              {"deepseek3.1", "deepseek3-671b"},      {"deepseek-v3.2", "deepseek3.2-671b"},
                              {"deepseek3.2", "deepseek3.2-671b"},    {"deepseek-coder-v2-lite", "deepseek2-16b"}};
constexpr std::string_view kSuffixes[] = {"-instruct", "-chat", "-base", "-exp", "-speciale", "-terminus", "-0324",
                                          "-0528",     "-0628", "-1210", "-16b", "-236b",     "-671b"};

std::string WithoutInstruct(std::string name) {
  constexpr std::string_view kSuffix = "-Instruct";
  if (name.ends_with(kSuffix)) name.resize(name.size() - kSuffix.size());
  return name;
}

}  // namespace

bool IsYml(std::string_view text) { return text.ends_with(".yml") || text.ends_with(".yaml"); }

std::string ModelNameOfAlias(const std::string& name) {
  std::string plain = Lower(name.substr(name.rfind('/') + 1));
  for (bool cut = true; cut;) {
    const auto alias = std::ranges::find(kAliases, std::string_view(plain), &Alias::alias);
    if (alias != std::end(kAliases)) return std::string(alias->model);
    const auto suffix = std::ranges::find_if(kSuffixes, [&](std::string_view x) { return plain.ends_with(x); });
    cut = suffix != std::end(kSuffixes);
    if (cut) plain.resize(plain.size() - suffix->size());
  }
  return name;
}

CopyKind CopyKindOf(const ConfigFile& file) {
  const auto is_own = [](const FlagSpec& flag) { return flag.role == FlagRole::kOwn; };
  size_t own = 0, all_own = 0;
  bool has_parent = false;
  for (const auto& [key, value] : file.flags.values) {
    own += is_own(Flags().find(key)->second) ? 1 : 0;
    has_parent |= key == "base_config" && !std::get<std::string>(value).empty();
  }
  for (const auto& [name, flag] : Flags()) all_own += is_own(flag) ? 1 : 0;
  const size_t maxtexts = file.flags.values.size() - own, all_maxtexts = Flags().size() - all_own;
  if (2 * maxtexts > all_maxtexts || (file.is_maxtext && !has_parent)) return CopyKind::kMaxText;
  return 2 * own > all_own ? CopyKind::kOwn : CopyKind::kNone;
}

ConfigFile ReadConfigFile(const fs::path& path) {
  if (!fs::exists(path)) {
    if (auto built_in = ReadBuiltIn(path.filename().string())) return *std::move(built_in);
  }
  return ReadFromDisk(path);
}

ConfigFile ReadParent(const ConfigFile& file, const fs::path& path) {
  const fs::path beside = file.folder / path, above = file.folder / ".." / path;
  return ReadConfigFile(!fs::exists(beside) && fs::exists(above) ? above : beside);
}

ConfigFile ReadModelFile(const std::string& name, const fs::path& config_folder) {
  if (IsYml(name)) return ReadFromDisk(name);
  for (const std::string& known : {name, WithoutInstruct(name), ModelNameOfAlias(name)}) {
    const std::string file = "models/" + known + ".yml";
    for (const fs::path& path : {config_folder / file, config_folder / ".." / file}) {
      if (!config_folder.empty() && fs::exists(path)) return ReadModelFromDisk(path, file);
    }
    if (auto built_in = ReadBuiltIn(file)) return *std::move(built_in);
  }
  Throw(ErrorCode::kUsage, "model_name={}: unknown model{} (known: {})", name, DidYouMean(name, ModelNames()),
        fmt::join(ModelNames(), ", "));
}

}  // namespace fathom
