// What a model wrote after a prompt of a chat template, read back: the reverse of rendering an answer. docs/chat.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fathom/chat/chat_template.h"

namespace fathom {

struct ToolCall {
  std::string name, arguments;  // arguments: the text of a JSON object, as the model wrote its values; not checked
};

struct Completion {
  std::string content, reasoning_content;
  std::vector<ToolCall> tool_calls;
};

// text: from the first token after the prompt to the end-of-sentence, which v3.2 requires unless tool calls end the text and the others
// don't. thinking: the prompt asked for reasoning, as r1's always does; then </think> must stand in the text. v3.2 is read exactly as
// strictly as DeepSeek's own parser does. Throws Error(kInput) for what doesn't have the template's form.
Completion ParseCompletion(ChatTemplate which, std::string_view text, bool thinking);

// {"role": "assistant", "content", "reasoning_content", "tool_calls": [{"type": "function", "function": {"name", "arguments"}}]}.
OrderedJson CompletionMessage(const Completion& completion);

// v32_parser.cc.
Completion ParseV32Completion(std::string_view text, bool thinking);

}  // namespace fathom
