#include "fathom/chat/conversation.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/chat/message.h"

namespace fathom {
namespace {

const OrderedJson& Column(const OrderedJson& row, const char* name) {
  if (!row.is_object()) Throw(ErrorCode::kInput, "no JSON object");
  const auto found = row.find(name);
  if (found == row.end() || found->is_null()) Throw(ErrorCode::kInput, "no \"{}\"; train_data_columns names what a row has", name);
  return *found;
}

// A speaker's role; empty: unknown.
std::string_view RoleOf(std::string_view speaker) {
  if (speaker == "human" || speaker == "user") return "user";
  if (speaker == "gpt" || speaker == "assistant" || speaker == "chatgpt" || speaker == "model") return "assistant";
  if (speaker == "system") return "system";
  if (speaker == "tool" || speaker == "observation" || speaker == "function_response") return "tool";
  return "";
}

// {"from", "value"} to {"role", "content"}; what has a role already stays.
OrderedJson FromShareGpt(const OrderedJson& turns) {
  if (!turns.is_array()) Throw(ErrorCode::kInput, "\"conversations\" is no list");
  OrderedJson messages = OrderedJson::array();
  for (size_t i = 0; i < turns.size(); ++i) {
    const Message turn(turns[i], i);
    if (turn.Has("role") && !turn.Has("from")) {
      messages.push_back(turns[i]);
      continue;
    }
    const std::string_view role = RoleOf(turn.Text("from"));
    if (role.empty()) turn.Fail("the speaker \"{}\" is unknown", turn.Text("from"));
    messages.push_back({{"role", role}, {"content", turn.Text("value")}});
  }
  return messages;
}

// A text as one message, or the messages themselves.
void AddTurn(const OrderedJson& row, const char* column, const char* role, OrderedJson& messages) {
  const OrderedJson& turn = Column(row, column);
  if (turn.is_string()) {
    messages.push_back({{"role", role}, {"content", turn}});
  } else if (turn.is_array()) {
    messages.insert(messages.end(), turn.begin(), turn.end());
  } else {
    Throw(ErrorCode::kInput, "\"{}\" is neither a text nor a list of messages", column);
  }
}

OrderedJson Pair(const OrderedJson& row, const char* question, const char* answer) {
  OrderedJson messages = OrderedJson::array();
  AddTurn(row, question, "user", messages);
  AddTurn(row, answer, "assistant", messages);
  return messages;
}

OrderedJson MessagesOf(const OrderedJson& row, ConversationForm form) {
  if (form == ConversationForm::kPromptCompletion) return Pair(row, "prompt", "completion");
  if (form == ConversationForm::kQuestionAnswer) return Pair(row, "question", "answer");
  if (form == ConversationForm::kShareGpt) return FromShareGpt(Column(row, "conversations"));
  return Column(row, "messages");
}

// Templates pass over a role that they don't know; in data it is more likely a mistake.
void CheckRoles(const OrderedJson& messages, ChatTemplate which) {
  if (!messages.is_array()) Throw(ErrorCode::kInput, "\"messages\" is no list of messages");
  if (messages.empty()) Throw(ErrorCode::kInput, "a conversation without messages");
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message message(messages[i], i);
    const bool known = message.Is("system") || message.Is("user") || message.Is("assistant") || message.Is("tool") ||
                       (message.Is("developer") && which == ChatTemplate::kV32);
    if (!known) message.Fail("the role \"{}\" is unknown to {}", message.Text("role"), ChatTemplateName(which));
  }
}

// In data a key with null is one that is not there, as tables have it; templates tell the two apart. A content may be null.
void DropNulls(OrderedJson& messages) {
  for (OrderedJson& message : messages) {
    std::vector<std::string> absent;
    for (const auto& [key, value] : message.items()) {
      if (value.is_null() && key != "content") absent.push_back(key);
    }
    for (const std::string& key : absent) message.erase(key);
  }
}

void PutTools(const OrderedJson& row, OrderedJson& messages) {
  const auto tools = row.find("tools");
  if (tools == row.end() || !Truthy(*tools)) return;
  auto system = std::ranges::find_if(messages, [](const OrderedJson& m) { return m.value("role", "") == "system"; });
  if (system == messages.end()) system = messages.insert(messages.begin(), OrderedJson{{"role", "system"}, {"content", ""}});
  if (!system->contains("tools"))
    (*system)["tools"] = tools->is_string() ? ParseOrderedJson(tools->get_ref<const std::string&>(), "\"tools\"") : *tools;
}

}  // namespace

ConversationForm ParseConversationForm(const std::vector<std::string>& columns, std::string_view flag) {
  const std::set<std::string> names(columns.begin(), columns.end());
  if (names == std::set<std::string>{"messages"}) return ConversationForm::kMessages;
  if (names == std::set<std::string>{"prompt", "completion"}) return ConversationForm::kPromptCompletion;
  if (names == std::set<std::string>{"question", "answer"}) return ConversationForm::kQuestionAnswer;
  if (names == std::set<std::string>{"conversations"}) return ConversationForm::kShareGpt;
  Throw(ErrorCode::kUsage, "{}=[{}]: allowed are [messages], [prompt,completion], [question,answer] and [conversations]", flag,
        fmt::join(columns, ","));
}

OrderedJson ConversationOf(const OrderedJson& row, ConversationForm form, ChatTemplate which) {
  OrderedJson messages = MessagesOf(row, form);
  CheckRoles(messages, which);
  DropNulls(messages);
  if (which == ChatTemplate::kV32) PutTools(row, messages);
  return messages;
}

bool ShowsReasoning(const OrderedJson& messages) {
  bool shows = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message message(messages[i], i);
    shows = !message.Is("user") && !message.Is("developer") && (shows || message.IsTrue("reasoning_content"));
  }
  return shows;
}

}  // namespace fathom
