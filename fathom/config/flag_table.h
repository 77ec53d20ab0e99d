// What is known of every flag: type, default, allowed values, help. Read from configs/base.yml and the rules in flag_table.cc.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/config/run_config.h"

namespace fathom {

enum class FlagType { kBool, kInt, kFloat, kString, kList };

struct FlagSpec {
  std::string name;
  FlagType type = FlagType::kString;
  FlagValue default_value;           // null only where null is allowed
  std::string help;                  // the comment in base.yml
  std::vector<std::string> allowed;  // values of a kString or of a kList's items; empty: any
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();  // a number's range
  bool is_size = false;     // a kInt that understands 5GB, 1GiB
  bool is_literal = false;  // a kString taken as it stands, quotes and the word null included
  bool repeats = false;     // a kList that grows when given again

  bool nullable() const { return std::holds_alternative<std::monostate>(default_value); }
  // "a whole number from 1", "one of adamw, sgd": what to write instead of a wrong value.
  std::string AllowedText() const;
};

using FlagTable = std::map<std::string, FlagSpec, std::less<>>;
const FlagTable& Flags();

// The flag of this name ('-' counts as '_'). Throws Error(kUsage) naming the nearest one; where begins the message.
const FlagSpec& FindFlag(std::string_view name, const std::string& where);

}  // namespace fathom
