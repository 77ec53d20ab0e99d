#include "fathom/config/flag_text.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "fathom/base/error.h"

namespace fathom {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

bool IsNullText(std::string_view text) {
  const std::string lower = Lower(text);
  return lower == "null" || lower == "none" || lower == "~";
}

std::string_view Unquoted(std::string_view text) {
  const bool quoted = text.size() >= 2 && (text.front() == '"' || text.front() == '\'') && text.back() == text.front();
  return quoted ? text.substr(1, text.size() - 2) : text;
}

std::optional<bool> BoolOf(std::string_view text) {
  const std::string lower = Lower(text);
  if (lower == "true" || lower == "1" || lower == "yes" || lower == "on") return true;
  if (lower == "false" || lower == "0" || lower == "no" || lower == "off") return false;
  return std::nullopt;
}

// Digits may be grouped: 10_000.
template <class T>
std::optional<T> NumberOf(std::string_view text) {
  std::string digits(Unquoted(text));
  std::erase(digits, '_');
  const char* begin = digits.data() + (digits.starts_with('+') ? 1 : 0);
  T value{};
  const auto [end, error] = std::from_chars(begin, digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || digits.empty()) return std::nullopt;
  return value;
}

// A float that holds a whole number that int64 can hold exactly: 1e4.
std::optional<int64_t> WholeNumber(std::optional<double> value) {
  if (!value || !(std::abs(*value) < 9e15) || *value != std::floor(*value)) return std::nullopt;
  return static_cast<int64_t>(*value);
}

// 5GB, 1.5 GiB, 512m.
std::optional<int64_t> SizeOf(std::string_view text) {
  constexpr std::string_view kPrefixes = "kmgtp";
  std::string lower = Lower(Unquoted(text));
  if (lower.ends_with('b')) lower.pop_back();
  const bool binary = lower.ends_with('i');
  if (binary) lower.pop_back();
  const size_t power = lower.empty() ? kPrefixes.npos : kPrefixes.find(lower.back());
  if (power == kPrefixes.npos) return std::nullopt;
  lower.pop_back();
  const auto number = NumberOf<double>(Trim(lower));
  if (!number) return std::nullopt;
  return WholeNumber(std::round(*number * std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power + 1))));
}

std::optional<int64_t> IntOf(const FlagSpec& flag, std::string_view text) {
  if (const auto number = NumberOf<int64_t>(text)) return number;
  if (const auto number = WholeNumber(NumberOf<double>(text))) return number;
  return flag.is_size ? SizeOf(text) : std::nullopt;
}

// The items of "[a, 'b, c', [d, e]]"; commas inside quotes or inner brackets don't split. nullopt: brackets or quotes don't match.
std::optional<std::vector<std::string>> ItemsOf(std::string_view text) {
  if (!text.starts_with('[')) return std::vector<std::string>{std::string(Unquoted(text))};
  if (!text.ends_with(']')) return std::nullopt;
  text = Trim(text.substr(1, text.size() - 2));
  std::vector<std::string> items;
  if (text.empty()) return items;
  char quote = 0;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ',';
    if (i == text.size() && (quote != 0 || depth != 0)) return std::nullopt;
    if (quote != 0) {
      if (c == quote) quote = 0;
    } else if ((c == '"' || c == '\'') && Trim(text.substr(begin, i - begin)).empty()) {
      quote = c;
    } else if (c == '[' || c == '(') {
      ++depth;
    } else if (c == ']' || c == ')') {
      --depth;
    } else if (c == ',' && depth == 0) {
      items.emplace_back(Unquoted(Trim(text.substr(begin, i - begin))));
      begin = i + 1;
    }
  }
  return items;
}

bool IsListed(const FlagSpec& flag, std::string_view text) {
  return std::find(flag.allowed.begin(), flag.allowed.end(), text) != flag.allowed.end();
}

std::string StringOf(const FlagSpec& flag, std::string_view text) {
  if (flag.is_literal || IsListed(flag, text)) return std::string(text);
  return IsNullText(text) ? "" : std::string(Unquoted(text));
}

template <class T>
std::optional<FlagValue> AsValue(std::optional<T> value) {
  return value ? std::optional<FlagValue>(std::move(*value)) : std::nullopt;
}

std::optional<FlagValue> ValueOf(const FlagSpec& flag, std::string_view text) {
  if (flag.nullable() && IsNullText(text)) return FlagValue();
  switch (flag.type) {
    case FlagType::kBool:
      return AsValue(BoolOf(Unquoted(text)));
    case FlagType::kInt:
      return AsValue(IntOf(flag, text));
    case FlagType::kFloat:
      return AsValue(NumberOf<double>(text));
    case FlagType::kString:
      return AsValue(std::optional<std::string>(StringOf(flag, text)));
    case FlagType::kList:
      return IsNullText(text) ? FlagValue(std::vector<std::string>()) : AsValue(ItemsOf(Trim(text)));
  }
  return std::nullopt;
}

[[noreturn]] void WrongValue(const FlagSpec& flag, std::string_view text, const std::string& where) {
  Throw(ErrorCode::kUsage, "{}: {}={}: allowed is {}", where, flag.name, text, flag.AllowedText());
}

bool Suits(const FlagSpec& flag, const FlagValue& value) {
  if (std::holds_alternative<std::monostate>(value)) return flag.nullable();
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr && !flag.allowed.empty()) return IsListed(flag, *text);
  const auto* items = std::get_if<std::vector<std::string>>(&value);
  if (items != nullptr && !flag.allowed.empty()) return std::ranges::all_of(*items, [&](const auto& item) { return IsListed(flag, item); });
  const auto* whole = std::get_if<int64_t>(&value);
  const auto* real = std::get_if<double>(&value);
  if (whole == nullptr && real == nullptr) return true;
  const double number = whole != nullptr ? static_cast<double>(*whole) : *real;
  return std::isfinite(number) && number >= flag.low && number <= flag.high;
}

}  // namespace

bool IsBoolText(std::string_view text) { return BoolOf(text).has_value(); }

void CheckFlag(const FlagSpec& flag, const FlagValue& value, const std::string& where) {
  if (!Suits(flag, value)) WrongValue(flag, FormatFlag(value), where);
}

FlagValue ReadFlag(const FlagSpec& flag, std::string_view text, const std::string& where) {
  const auto value = ValueOf(flag, text);
  if (!value) WrongValue(flag, text, where);
  return *value;
}

FlagValue ParseFlag(const FlagSpec& flag, std::string_view text, const std::string& where) {
  FlagValue value = ReadFlag(flag, text, where);
  if (!Suits(flag, value)) WrongValue(flag, text, where);
  return value;
}

std::string FormatFlag(const FlagValue& value) {
  struct Formatter {
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(bool x) const { return x ? "true" : "false"; }
    std::string operator()(int64_t x) const { return fmt::format("{}", x); }
    std::string operator()(double x) const { return fmt::format("{}", x); }
    std::string operator()(const std::string& x) const { return x.empty() ? "\"\"" : x; }
    std::string operator()(const std::vector<std::string>& x) const { return fmt::format("[{}]", fmt::join(x, ", ")); }
  };
  return std::visit(Formatter(), value);
}

}  // namespace fathom
