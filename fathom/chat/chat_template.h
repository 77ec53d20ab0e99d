// The chat templates of the DeepSeek family, native: a conversation to the text that the model was taught on. docs/chat.md.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/chat/ordered_json.h"

namespace fathom {

enum class ChatTemplate { kV2, kV3, kV3March, kR1, kV31, kV32 };

inline constexpr std::string_view kBosText = "<｜begin▁of▁sentence｜>", kEosText = "<｜end▁of▁sentence｜>";

// "v2", "v3", "v3-0324", "r1", "v3.1", "v3.2".
std::string_view ChatTemplateName(ChatTemplate which);
// All of them, with commas between.
std::string ChatTemplateNames();
std::optional<ChatTemplate> FindChatTemplate(std::string_view name);

// Which of them a Jinja template is, by what it says, whatever its spacing. Throws Error(kInput), with where and the known names, for
// another.
ChatTemplate RecogniseChatTemplate(std::string_view jinja, const std::string& where);

// The template of a checkpoint's or tokenizer's folder (or of the folder a tokenizer.json lies in): chat_template.jinja, else the entry in
// tokenizer_config.json; a V3.2 has neither and is known by its config.json or the encoder beside it. Throws Error(kInput): none, unknown.
ChatTemplate CheckpointChatTemplate(const std::filesystem::path& path);

// By name, else what the file at `path` holds, else CheckpointChatTemplate(dir). Throws Error(kUsage) for an unknown name, Error(kInput).
ChatTemplate ChooseChatTemplate(const std::string& name, const std::filesystem::path& path, const std::filesystem::path& dir);

struct ChatOptions {
  bool add_generation_prompt = false;  // v3.2 has no choice: after a user's or a tool's message it always asks for the answer
  bool thinking = false;               // v3.1, v3.2: whether the answer begins with reasoning
  bool drop_thinking = true;           // v3.2: leave out the reasoning before the last user message
};

// Bytes begin to end - 1 of the text were written by the model: an answer and the end-of-sentence after it.
struct AnswerSpan {
  size_t begin, end;
};

struct RenderedChat {
  std::string text;
  std::vector<AnswerSpan> answers;  // in order, none overlap
};

// messages: an array of objects with role, content and what else the template reads (tool_calls, tools, reasoning_content ...).
// context: messages that were rendered before; only the text that follows them is returned (v3.2 only).
// Throws Error(kInput) wherever the original template or encoder fails; the message counts messages from 0.
RenderedChat RenderChat(ChatTemplate which, const OrderedJson& messages, const ChatOptions& options = {},
                        const OrderedJson& context = OrderedJson::array());

}  // namespace fathom
