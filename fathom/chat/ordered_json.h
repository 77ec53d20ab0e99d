// JSON as chat templates need it: keys in the file's order, numbers as Python would write them again.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace fathom {

using OrderedJson = nlohmann::ordered_json;

// As Python's json.loads reads it: of a key that stands twice the last value counts, at the first one's place; an integer beyond 64 bits
// keeps its digits (as a value of type binary). where names the text in the error. Throws Error(kInput): not JSON, deeper than max_depth.
OrderedJson ParseOrderedJson(std::string_view text, const std::string& where, int max_depth = 64);

// As Python's json.dumps(value, ensure_ascii=False) writes it: ", " and ": ", 1e5 as 100000.0.
std::string DumpLikePython(const OrderedJson& value);

}  // namespace fathom
