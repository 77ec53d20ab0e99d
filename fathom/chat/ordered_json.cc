#include "fathom/chat/ordered_json.h"

#include <fmt/format.h>

#include <charconv>
#include <vector>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// Builds the value while the library's parser runs: its own builder keeps the first of two equal keys and rounds large integers.
class Builder : public nlohmann::json_sax<OrderedJson> {
 public:
  Builder(const std::string& where, int max_depth) : where_(where), max_depth_(max_depth) {}
  OrderedJson Take() { return std::move(root_); }

  bool null() override { return Put(nullptr); }
  bool boolean(bool value) override { return Put(value); }
  bool number_integer(number_integer_t value) override { return Put(value); }
  bool number_unsigned(number_unsigned_t value) override { return Put(value); }
  bool number_float(number_float_t value, const string_t& digits) override {
    if (digits.find_first_of(".eE") != digits.npos) return Put(value);
    return Put(OrderedJson::binary(std::vector<uint8_t>(digits.begin(), digits.end())));
  }
  bool string(string_t& value) override { return Put(std::move(value)); }
  bool binary(binary_t& value) override { return Put(OrderedJson::binary(std::move(value))); }
  bool start_object(size_t /*size*/) override { return Open(OrderedJson::object()); }
  bool start_array(size_t /*size*/) override { return Open(OrderedJson::array()); }
  bool key(string_t& value) override {
    key_ = std::move(value);
    return true;
  }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool parse_error(size_t position, const std::string& /*last*/, const nlohmann::detail::exception& /*error*/) override {
    Throw(ErrorCode::kInput, "{}: not valid JSON (at byte {})", where_, position);
  }

 private:
  OrderedJson& Place(OrderedJson value) {
    if (open_.empty()) return root_ = std::move(value);
    OrderedJson& parent = *open_.back();
    if (parent.is_object()) return parent[key_] = std::move(value);
    parent.push_back(std::move(value));
    return parent.back();
  }
  bool Put(OrderedJson value) {
    Place(std::move(value));
    return true;
  }
  bool Open(OrderedJson value) {
    if (static_cast<int>(open_.size()) >= max_depth_) Throw(ErrorCode::kInput, "{}: JSON nested deeper than {}", where_, max_depth_);
    open_.push_back(&Place(std::move(value)));  // stays where it is until it is closed: only then its parent grows
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  const std::string& where_;
  int max_depth_;
  OrderedJson root_;
  std::vector<OrderedJson*> open_;
  std::string key_;
};

// Python's repr: the shortest digits that read back as the same number; an exponent from 1e16 on and below 1e-4.
std::string FloatRepr(double value) {
  char buffer[40];
  const double size = value < 0 ? -value : value;
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, plain ? std::chars_format::fixed : std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  return plain && text.find('.') == text.npos ? text + ".0" : text;
}

std::string Quote(const std::string& text) { return OrderedJson(text).dump(-1, ' ', false, OrderedJson::error_handler_t::replace); }

void Append(const OrderedJson& value, std::string& out) {
  if (value.is_object()) {
    const char* separator = "{";
    for (const auto& [key, item] : value.items()) {
      out.append(separator).append(Quote(key)).append(": ");
      Append(item, out);
      separator = ", ";
    }
    out += value.empty() ? "{}" : "}";
  } else if (value.is_array()) {
    const char* separator = "[";
    for (const OrderedJson& item : value) {
      out += separator;
      Append(item, out);
      separator = ", ";
    }
    out += value.empty() ? "[]" : "]";
  } else if (value.is_number_float()) {
    out += FloatRepr(value.get<double>());
  } else if (value.is_binary()) {
    out.append(value.get_binary().begin(), value.get_binary().end());
  } else {
    out += value.is_string() ? Quote(value.get_ref<const std::string&>()) : value.dump();
  }
}

}  // namespace

OrderedJson ParseOrderedJson(std::string_view text, const std::string& where, int max_depth) {
  if (text.starts_with("\xEF\xBB\xBF")) Throw(ErrorCode::kInput, "{}: not valid JSON (it begins with a byte order mark)", where);
  Builder builder(where, max_depth);
  OrderedJson::sax_parse(text.begin(), text.end(), &builder);
  return builder.Take();
}

std::string DumpLikePython(const OrderedJson& value) {
  std::string out;
  Append(value, out);
  return out;
}

}  // namespace fathom
