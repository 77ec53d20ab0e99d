// fathom decode chat=true and messages_file=: conversations by the model's chat template.
#pragma once

#include <string>
#include <vector>

#include "fathom/chat/chat_template.h"
#include "fathom/config/run_config.h"
#include "fathom/infer/generate.h"

namespace fathom {

// What renders a conversation: chat_template=, or the checkpoint's own, and thinking=.
struct ChatForm {
  ChatTemplate which;
  bool thinking = false;
};
// Throws Error(kInput): the folder names no template that is known.
ChatForm ReadChatForm(const RunConfig& config, const std::filesystem::path& tokenizer_dir);

// The ids of a conversation up to where the answer begins. Throws Error(kInput) as RenderChat does.
std::vector<int32_t> ChatPrompt(const ChatForm& form, const Tokenizer& tokenizer, const OrderedJson& messages);

// The conversation in a file: a list of messages, or an object with "messages". Throws Error(kInput).
OrderedJson ReadMessages(const std::filesystem::path& file);

// Reads what the user says from standard input until it ends or says /quit, and answers. Ctrl-C stops an answer and not the program.
// options.max_new_tokens: of an answer at most; the engine's capacity is that of the whole conversation.
int Converse(Engine& engine, const Tokenizer& tokenizer, const ChatForm& form, const GenerateOptions& options);

}  // namespace fathom
