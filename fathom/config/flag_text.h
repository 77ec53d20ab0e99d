// Flag values from and to text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fathom/config/flag_table.h"

namespace fathom {

// The value that text means for this flag: True/true, 1e-4, 5GB, null, none, quoted strings, [a, 'b'] and a bare word for a list.
// Throws Error(kUsage): wrong type, out of range, not among the allowed; where ("command line") begins the message.
FlagValue ParseFlag(const FlagSpec& flag, std::string_view text, const std::string& where);

// As ParseFlag, of the right type but perhaps not among the allowed: CheckFlag asks that.
FlagValue ReadFlag(const FlagSpec& flag, std::string_view text, const std::string& where);

// Throws Error(kUsage) unless the value suits the flag; as ParseFlag, for values that have their type already.
void CheckFlag(const FlagSpec& flag, const FlagValue& value, const std::string& where);

bool IsBoolText(std::string_view text);

// As it could stand on a command line: 1e-08, true, [a, b], null.
std::string FormatFlag(const FlagValue& value);

}  // namespace fathom
