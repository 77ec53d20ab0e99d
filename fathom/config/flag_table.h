// What is known of every flag: type, default, allowed values, help. Read from configs/base.yml (what fathom does),
// configs/maxtext_accepted.yml and maxtext_refused.yml (what only MaxText does), and the rules in flag_table.cc.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/config/run_config.h"

namespace fathom {

enum class FlagType { kBool, kInt, kFloat, kString, kList };

enum class FlagRole {
  kOwn,       // a command reads it
  kAccepted,  // MaxText's, changes nothing here
  kRefused,   // MaxText's, would change the result of some commands: there only its neutral value can be honoured
};

struct FlagSpec {
  std::string name;
  FlagRole role = FlagRole::kOwn;
  FlagType type = FlagType::kString;
  FlagValue default_value;              // null only where null is allowed; of a kRefused flag the neutral value
  FlagValue maxtext_default;            // default_value, but where MaxText's base.yml has another
  std::string help;                     // the comment in the file of configs/
  std::vector<std::string> refused_by;  // of a kRefused flag: the commands whose result it would change, "check" for all that begin so
  std::vector<std::string> allowed;     // values of a kString or of a kList's items; empty: any
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();  // a number's range
  bool is_size = false;     // a kInt that understands 5GB, 1GiB
  bool is_path = false;     // a kString or the items of a kList name local files
  bool is_literal = false;  // a kString taken as it stands, quotes and the word null included
  bool repeats = false;     // a kList that grows when given again

  bool IsRefusedBy(std::string_view command) const;
  bool nullable() const { return std::holds_alternative<std::monostate>(default_value); }
  // "a whole number from 1", "one of adamw, sgd": what to write instead of a wrong value.
  std::string AllowedText() const;
};

using FlagTable = std::map<std::string, FlagSpec, std::less<>>;
const FlagTable& Flags();

std::vector<std::string> FlagNames();
std::string WithUnderscores(std::string_view name);  // a flag's name may be written with '-'

// The flag of this name ('-' counts as '_'). Throws Error(kUsage), naming one that is near; where begins the message.
const FlagSpec& FindFlag(std::string_view name, const std::string& where);

}  // namespace fathom
