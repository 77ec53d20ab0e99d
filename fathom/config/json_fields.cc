#include "fathom/config/json_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// Long values are cut: the message stays one readable line.
std::string Shown(const Json& value) {
  constexpr size_t kLongest = 60;
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

bool SaysNothing(const Json& value) {
  if (value.is_null() || (value.is_boolean() && !value.get<bool>())) return true;
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.is_structured() && value.empty();
}

}  // namespace

JsonFields::JsonFields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
  if (!json.is_object()) Throw(ErrorCode::kInput, "{}: {} is not a JSON object", where_, Shown(json));
}

JsonFields JsonFields::Inner(const std::string& name) {
  JsonFields inner(Any(name), where_ + ": " + name);
  inner.prefix_ = prefix_ + name + ".";
  return inner;
}

bool JsonFields::Has(std::string_view name) {
  read_.emplace(name);
  const auto found = json_.find(name);
  return found != json_.end() && !found->is_null();
}

const Json& JsonFields::Any(std::string_view name) {
  if (!Has(name)) Throw(ErrorCode::kInput, "{}: {} is missing", where_, name);
  return *json_.find(name);
}

int64_t JsonFields::Int(std::string_view name) {
  const Json& value = Any(name);
  if (!value.is_number_integer()) Wrong(name, "a whole number");
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    Wrong(name, "a smaller number");
  return value.get<int64_t>();
}

double JsonFields::Double(std::string_view name) {
  const Json& value = Any(name);
  if (!value.is_number() || !std::isfinite(value.get<double>())) Wrong(name, "a number");
  return value.get<double>();
}

bool JsonFields::Bool(std::string_view name) {
  const Json& value = Any(name);
  if (!value.is_boolean()) Wrong(name, "true or false");
  return value.get<bool>();
}

std::string JsonFields::String(std::string_view name) {
  const Json& value = Any(name);
  if (!value.is_string()) Wrong(name, "a string");
  return value.get<std::string>();
}

std::vector<int64_t> JsonFields::Ids(std::string_view name) {
  const Json& value = Any(name);
  const bool list = value.is_array() && !value.empty() && std::ranges::all_of(value, [](const Json& id) { return id.is_number_integer(); });
  if (!list && !value.is_number_integer()) Wrong(name, "a whole number, or a list of them");
  return list ? value.get<std::vector<int64_t>>() : std::vector{Int(name)};
}

void JsonFields::CheckAllRead(const std::vector<std::string>& vouched_for) const {
  for (const auto& [name, value] : json_.items()) {
    const bool ignored = std::ranges::find(vouched_for, prefix_ + name) != vouched_for.end();
    if (read_.contains(name) || ignored || SaysNothing(value)) continue;
    Throw(ErrorCode::kInput,
          "{}: {}={} is not understood and may change the model's mathematics; if it does not, remove it or give ignore_config_keys=[{}]",
          where_, name, Shown(value), prefix_ + name);
  }
}

void JsonFields::Wrong(std::string_view name, const std::string& allowed) const {
  const auto found = json_.find(name);
  Throw(ErrorCode::kInput, "{}: {} is {}, allowed is {}", where_, name, found == json_.end() ? "missing" : Shown(*found), allowed);
}

}  // namespace fathom
