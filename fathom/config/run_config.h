// The resolved flags of one run: base.yml, the model's yml, key=value arguments and the environment, merged as MaxText does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace fathom {

// null, bool, int, float, string, list of strings.
using FlagValue = std::variant<std::monostate, bool, int64_t, double, std::string, std::vector<std::string>>;

struct Flag {
  FlagValue value;
  std::string source;  // "base.yml", "models/deepseek3-tiny.yml", "command line", "environment FATHOM_STEPS", "derived"
  bool given = false;  // see RunConfig::Given
};

class RunConfig {
 public:
  // arguments: what follows the command's name: an optional path to a yml first, then key=value, --key=value, --key value.
  // Merging, model_name, override_model_config, FATHOM_<KEY> and M_<KEY>, base_config: as spec 1.1. Flag names may use '-' for '_'.
  // defaults: a yml of the program's own whose values stand where no file and no argument says otherwise; empty: none.
  // Throws Error(kUsage): unknown flag (names the nearest), wrong type (names flag, value, what is allowed), a model's key changed
  // without override_model_config.
  static RunConfig Resolve(const std::vector<std::string>& arguments, const std::string& defaults = "");

  // Typed access; asking for an unknown key or the wrong type is a bug (FATHOM_CHECK). Float accepts an int flag.
  bool Bool(std::string_view key) const;
  int64_t Int(std::string_view key) const;
  double Float(std::string_view key) const;
  const std::string& String(std::string_view key) const;  // null reads as ""
  const std::vector<std::string>& Strings(std::string_view key) const;

  bool IsNull(std::string_view key) const;  // flags whose default is null: not set
  // Did the user say it: on the command line, in the environment, or in a yml or its parents, even if it is the default? Not given are
  // base.yml's defaults, those that a copy of base.yml or of MaxText's repeats, what the model's file sets, and what is derived.
  bool Given(std::string_view key) const;
  const std::map<std::string, Flag, std::less<>>& flags() const { return flags_; }
  // Non-flag words on the command line, in order ("golden" of `check golden`).
  const std::vector<std::string>& words() const { return words_; }
  // Keys of MaxText's own yml files that are no flag here.
  const std::vector<std::string>& unknown() const { return unknown_; }
  void AddUnknown(std::string key);  // each once
  void Set(std::string_view key, FlagValue value, std::string source, bool given = false);

 private:
  std::map<std::string, Flag, std::less<>> flags_;
  std::vector<std::string> words_, unknown_;
};

}  // namespace fathom
