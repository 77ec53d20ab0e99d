// Rows of a data set as conversations: the forms in which people keep them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fathom/chat/chat_template.h"

namespace fathom {

enum class ConversationForm {
  kMessages,          // messages: a list of role and content
  kPromptCompletion,  // prompt, completion: texts, or lists of messages
  kQuestionAnswer,    // question, answer: likewise
  kShareGpt,          // conversations: a list of from and value
};

// Which one the columns' names say, in any order. Throws Error(kUsage) naming the flag and the four.
ConversationForm ParseConversationForm(const std::vector<std::string>& columns, std::string_view flag);

// The messages of a row, as RenderChat takes them. A row's own "tools" go to its first system message (one is made if there is none) where
// the template reads them there (v3.2); the other templates know none. Keys with null are left out, but for a content. Throws
// Error(kInput): no such column, what is in it is no conversation, a role or speaker that the template does not know.
OrderedJson ConversationOf(const OrderedJson& row, ConversationForm form, ChatTemplate which);

// Does an answer to the last user's message show its reasoning? Then a template that can tell (v3.2) renders it as thinking.
bool ShowsReasoning(const OrderedJson& messages);

}  // namespace fathom
