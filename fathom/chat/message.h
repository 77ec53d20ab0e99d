// A message of a conversation as templates look at it: what is absent, null or of another type fails where their code would fail.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/chat/chat_template.h"
#include "fathom/chat/ordered_json.h"

namespace fathom {

// What Python takes for true: null, false, 0, "", [] and {} are not.
inline bool Truthy(const OrderedJson& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  return value.is_string() ? !value.get_ref<const std::string&>().empty() : !value.empty();
}

// An object, or what stands in its place: then every look-up fails.
class Entry {
 public:
  Entry(const OrderedJson& value, std::string where) : value_(value), where_(std::move(where)) {}

  const OrderedJson* Find(const char* key) const {
    const auto it = value_.is_object() ? value_.find(key) : value_.end();
    return it == value_.end() ? nullptr : &*it;
  }
  bool Has(const char* key) const { return Find(key) != nullptr; }
  bool IsNull(const char* key) const { return Has(key) && Find(key)->is_null(); }
  bool IsTrue(const char* key) const { return Has(key) && Truthy(*Find(key)); }
  std::string_view Text(const char* key) const {
    const OrderedJson* found = Find(key);
    if (found == nullptr || !found->is_string()) Fail("no string \"{}\"", key);
    return found->get_ref<const std::string&>();
  }
  Entry At(const char* key) const {
    if (!Has(key)) Fail("no \"{}\"", key);
    return {*Find(key), where_ + ", " + key};
  }
  // The items of an array; an absent one has none, as an undefined name in Jinja.
  std::vector<Entry> Items(const char* key) const {
    std::vector<Entry> items;
    const OrderedJson* found = Find(key);
    if (found != nullptr && !found->is_array()) Fail("\"{}\" is not an array", key);
    for (size_t i = 0; found != nullptr && i < found->size(); ++i)
      items.emplace_back((*found)[i], fmt::format("{}, {} {}", where_, key, i));
    return items;
  }
  const OrderedJson& value() const { return value_; }

  template <class... Args>
  [[noreturn]] void Fail(fmt::format_string<Args...> format, Args&&... args) const {
    Throw(ErrorCode::kInput, "{}: {}", where_, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  const OrderedJson& value_;  // lives in the caller's conversation
  std::string where_;
};

class Message : public Entry {
 public:
  Message(const OrderedJson& value, size_t index) : Entry(value, fmt::format("message {}", index)) {
    if (!value.is_object()) Fail("not a JSON object");
    const OrderedJson* role = Find("role");
    if (role != nullptr && role->is_string()) role_ = role->get_ref<const std::string&>();
  }
  std::string_view role() const { return role_; }
  bool Is(std::string_view role) const { return role_ == role; }

 private:
  std::string_view role_;
};

// Grows a RenderedChat.
class ChatWriter {
 public:
  void Add(std::string_view text) { chat_.text += text; }
  template <class... Parts>
  void Add(std::string_view first, const Parts&... rest) {
    Add(first);
    Add(rest...);
  }
  // The same, and marks it as written by the model. Pieces that touch become one span.
  template <class... Parts>
  void Answer(const Parts&... parts) {
    const size_t begin = chat_.text.size();
    Add(parts...);
    if (!chat_.answers.empty() && chat_.answers.back().end == begin) {
      chat_.answers.back().end = chat_.text.size();
    } else {
      chat_.answers.push_back({begin, chat_.text.size()});
    }
  }
  RenderedChat Take() { return std::move(chat_); }

 private:
  RenderedChat chat_;
};

// jinja_templates.cc, v32_encoder.cc.
RenderedChat RenderJinja(ChatTemplate which, const std::vector<Message>& messages, const ChatOptions& options);
RenderedChat RenderV32(const std::vector<Message>& messages, size_t first, const ChatOptions& options);

}  // namespace fathom
