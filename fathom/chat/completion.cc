#include "fathom/chat/completion.h"

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>", kCallsBegin = "<｜tool▁calls▁begin｜>";
constexpr std::string_view kCallsEnd = "<｜tool▁calls▁end｜>", kCallBegin = "<｜tool▁call▁begin｜>", kCallEnd = "<｜tool▁call▁end｜>";
constexpr std::string_view kSeparator = "<｜tool▁sep｜>", kFence = "\n```json\n", kFenceEnd = "\n```";

[[noreturn]] void Fail(const char* what) { Throw(ErrorCode::kInput, "the completion can't be read: {}", what); }

// Takes what stands before word, and word, from the front of text.
std::string_view TakeUntil(std::string_view word, std::string_view& text, const char* missing) {
  const size_t at = text.find(word);
  if (at == text.npos) Fail(missing);
  const std::string_view before = text.substr(0, at);
  text.remove_prefix(at + word.size());
  return before;
}

// name<sep>arguments in V3.1; type<sep>name and a fenced block before it.
ToolCall ParseCall(std::string_view call, bool fenced) {
  const std::string_view first = TakeUntil(kSeparator, call, "a tool call without <｜tool▁sep｜>");
  if (!fenced) return {std::string(first), std::string(call)};
  const std::string_view name = TakeUntil(kFence, call, "a tool call without ```json");
  if (!call.ends_with(kFenceEnd)) Fail("a tool call's ```json has no end");
  call.remove_suffix(kFenceEnd.size());
  return {std::string(name), std::string(call)};
}

std::vector<ToolCall> ParseCalls(std::string_view text, bool fenced) {
  std::vector<ToolCall> calls;
  while (true) {
    if (text.starts_with('\n')) text.remove_prefix(1);
    if (text.empty() || text == kCallsEnd) return calls;  // V3's template doesn't close a single call
    if (!text.starts_with(kCallBegin)) Fail("text between or after tool calls");
    text.remove_prefix(kCallBegin.size());
    calls.push_back(ParseCall(TakeUntil(kCallEnd, text, "a tool call has no end"), fenced));
  }
}

}  // namespace

Completion ParseCompletion(ChatTemplate which, std::string_view text, bool thinking) {
  if (which == ChatTemplate::kV32) return ParseV32Completion(text, thinking);
  Completion out;
  if (text.ends_with(kEosText)) text.remove_suffix(kEosText.size());
  if (text.find(kEosText) != text.npos) Fail("text after the end of sentence");
  if (which == ChatTemplate::kV2 && text.starts_with(' ')) text.remove_prefix(1);  // the template's
  const bool reasons = which == ChatTemplate::kR1 || (which == ChatTemplate::kV31 && thinking);
  if (reasons && text.starts_with(kThink)) text.remove_prefix(kThink.size());
  if (reasons) out.reasoning_content = TakeUntil(kThinkEnd, text, "the reasoning has no end (</think>)");
  const size_t calls = which == ChatTemplate::kV2 ? text.npos : text.find(kCallsBegin);
  out.content = text.substr(0, calls);
  if (calls != text.npos) out.tool_calls = ParseCalls(text.substr(calls + kCallsBegin.size()), which != ChatTemplate::kV31);
  return out;
}

OrderedJson CompletionMessage(const Completion& completion) {
  OrderedJson calls = OrderedJson::array();
  for (const ToolCall& call : completion.tool_calls) {
    calls.push_back({{"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  return {
      {"role", "assistant"}, {"content", completion.content}, {"reasoning_content", completion.reasoning_content}, {"tool_calls", calls}};
}

}  // namespace fathom
