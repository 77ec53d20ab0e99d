// V3.2's completions. What is accepted, and every oddity in it, is what DeepSeek's own parser accepts.
#include <algorithm>
#include <optional>

#include "fathom/base/error.h"
#include "fathom/chat/completion.h"
#include "fathom/tokenizer/char_class.h"

namespace fathom {
namespace {

constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>", kDsml = "｜DSML｜";
constexpr std::string_view kCallsBegin = "\n\n<｜DSML｜function_calls", kCallsEnd = "</｜DSML｜function_calls>";
constexpr std::string_view kInvoke = "<｜DSML｜invoke", kInvokeEnd = "</｜DSML｜invoke";
constexpr std::string_view kParameter = "<｜DSML｜parameter", kParameterEnd = "/｜DSML｜parameter";

void Require(bool holds, const char* otherwise) {
  if (!holds) Throw(ErrorCode::kInput, "{}", otherwise);
}

// Spaces as Python's regular expressions see them.
std::string_view SkipSpaces(std::string_view text) {
  while (!text.empty()) {
    const ClassifiedChar c = CharClassTable::Get().At(text.data(), text.data() + text.size());
    const bool separator = text[0] >= 0x1C && text[0] <= 0x1F;
    if ((c.classes & kSpace) == 0 && !separator) break;
    text.remove_prefix(c.length);
  }
  return text;
}

// The text without end, which may be followed by one newline, as before a regular expression's $.
std::optional<std::string_view> BeforeEnd(std::string_view text, std::string_view end) {
  if (text.ends_with('\n') && text.substr(0, text.size() - 1).ends_with(end)) return text.substr(0, text.size() - 1 - end.size());
  if (text.ends_with(end)) return text.substr(0, text.size() - end.size());
  return std::nullopt;
}

struct Parameter {
  std::string_view name, value;
  bool is_string;
};

//  name="NAME" string="true|false">VALUE<, NAME as short as it can be.
std::optional<Parameter> ReadParameter(std::string_view text) {
  constexpr std::string_view begin = " name=\"", middle = "\" string=\"", yes = "true\">", no = "false\">";
  const auto body = BeforeEnd(text, "<");
  if (!body || !body->starts_with(begin)) return std::nullopt;
  const std::string_view rest = body->substr(begin.size());
  for (size_t at = rest.find(middle); at != rest.npos; at = rest.find(middle, at + 1)) {
    const std::string_view value = rest.substr(at + middle.size());
    for (const std::string_view kind : {yes, no}) {
      if (value.starts_with(kind)) return Parameter{rest.substr(0, at), value.substr(kind.size()), kind == yes};
    }
  }
  return std::nullopt;
}

class V32Parser {
 public:
  explicit V32Parser(std::string_view text) : rest_(text) {}

  Completion Parse(bool thinking) {
    Completion out;
    if (thinking) {
      out.reasoning_content = ReadUntil({kThinkEnd, kCallsBegin});
      Require(stop_ == kThinkEnd, "Invalid thinking format");
    }
    out.content = ReadUntil({kEosText, kCallsBegin});
    Require(!stop_.empty(), "Invalid summary format");
    if (stop_ == kCallsBegin) {
      out.tool_calls = ReadCalls();
      Require(ReadUntil({kEosText}).empty(), "Unexpected content after tool calls");
    }
    Require(rest_.empty(), "Unexpected content at end");
    for (const std::string_view token : {kBosText, kEosText, kThink, kThinkEnd, kDsml}) {
      const bool found = out.content.find(token) != std::string::npos || out.reasoning_content.find(token) != std::string::npos;
      Require(!found, "Unexpected special token in content");
    }
    return out;
  }

 private:
  // Takes the text before the first of these words, and the word, which becomes stop_. None found: all the text, and stop_ is empty.
  std::string_view ReadUntil(std::initializer_list<std::string_view> words) {
    size_t first = rest_.size();
    stop_ = {};
    for (const std::string_view word : words) {
      const size_t at = rest_.find(word);
      if (at < first) {
        first = at;
        stop_ = word;
      }
    }
    const std::string_view before = rest_.substr(0, first);
    rest_.remove_prefix(first + stop_.size());
    return before;
  }

  std::vector<ToolCall> ReadCalls() {
    std::vector<ToolCall> calls;
    while (!rest_.empty()) {
      Require(ReadUntil({kInvoke, kCallsEnd}) == ">\n", "Tool call format error");
      if (stop_ == kCallsEnd) break;
      Require(!stop_.empty(), "Missing special token");
      calls.push_back(ReadCall());
    }
    return calls;
  }

  ToolCall ReadCall() {
    constexpr std::string_view begin = "name=\"";
    const std::string_view head = SkipSpaces(ReadUntil({kParameter, kInvokeEnd}));
    const auto name = BeforeEnd(head, "\">\n");
    Require(name && name->starts_with(begin), "Tool name format error");
    ToolCall call{std::string(name->substr(begin.size())), "{"};
    std::vector<std::string_view> known;
    while (stop_ == kParameter) {
      const auto parameter = ReadParameter(ReadUntil({kParameterEnd}));
      Require(parameter.has_value(), "Parameter format error");
      Require(std::find(known.begin(), known.end(), parameter->name) == known.end(), "Duplicate parameter name");
      if (!known.empty()) call.arguments += ", ";
      known.push_back(parameter->name);
      const std::string value(parameter->value);
      call.arguments += DumpLikePython(std::string(parameter->name)) + ": " + (parameter->is_string ? DumpLikePython(value) : value);
      Require(ReadUntil({kParameter, kInvokeEnd}) == ">\n", "Parameter format error");
    }
    call.arguments += "}";
    return call;
  }

  std::string_view rest_, stop_;
};

}  // namespace

Completion ParseV32Completion(std::string_view text, bool thinking) { return V32Parser(text).Parse(thinking); }

}  // namespace fathom
