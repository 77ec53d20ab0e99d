#include "fathom/chat/conversation.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"

namespace fathom {
namespace {

std::string Messages(const std::string& row, ConversationForm form, ChatTemplate which = ChatTemplate::kV3) {
  return ConversationOf(ParseOrderedJson(row, "test"), form, which).dump();
}

std::string MessageOf(const std::string& row, ConversationForm form, ChatTemplate which = ChatTemplate::kV3) {
  try {
    Messages(row, form, which);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    return e.what();
  }
  return "";
}

TEST(Conversation, EveryFormGivesTheSameMessages) {
  const std::string want = R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])";
  EXPECT_EQ(Messages(R"({"id": 1, "messages": )" + want + "}", ConversationForm::kMessages), want);
  EXPECT_EQ(Messages(R"({"prompt": "a", "completion": "b"})", ConversationForm::kPromptCompletion), want);
  EXPECT_EQ(Messages(R"({"answer": "b", "question": "a"})", ConversationForm::kQuestionAnswer), want);
  EXPECT_EQ(Messages(R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})", ConversationForm::kShareGpt),
            want);
  EXPECT_EQ(Messages(R"({"conversations": )" + want + "}", ConversationForm::kShareGpt), want);
  EXPECT_EQ(Messages(R"({"prompt": [{"role":"user","content":"a"}], "completion": [{"role":"assistant","content":"b"}]})",
                     ConversationForm::kPromptCompletion),
            want);
}

TEST(Conversation, WhatIsNoneIsNamed) {
  EXPECT_NE(MessageOf(R"({"text": "a"})", ConversationForm::kMessages).find("no \"messages\""), std::string::npos);
  EXPECT_NE(MessageOf(R"({"messages": "a"})", ConversationForm::kMessages).find("no list"), std::string::npos);
  EXPECT_NE(MessageOf(R"({"messages": []})", ConversationForm::kMessages).find("without messages"), std::string::npos);
  EXPECT_NE(MessageOf(R"({"messages": [{"role": "wizard"}]})", ConversationForm::kMessages).find("wizard"), std::string::npos);
  EXPECT_NE(MessageOf(R"({"conversations": [{"from": "martian", "value": "x"}]})", ConversationForm::kShareGpt).find("martian"),
            std::string::npos);
  EXPECT_NE(MessageOf(R"({"prompt": "a"})", ConversationForm::kPromptCompletion).find("completion"), std::string::npos);
  EXPECT_NE(MessageOf("[1]", ConversationForm::kMessages).find("no JSON object"), std::string::npos);
  const std::string developer = R"({"messages": [{"role": "developer", "content": "x"}]})";
  EXPECT_EQ(MessageOf(developer, ConversationForm::kMessages, ChatTemplate::kV32), "");
  EXPECT_NE(MessageOf(developer, ConversationForm::kMessages), "");
}

TEST(Conversation, ColumnsNameTheForm) {
  EXPECT_EQ(ParseConversationForm({"completion", "prompt"}, "f"), ConversationForm::kPromptCompletion);
  EXPECT_THROW(ParseConversationForm({"text"}, "f"), Error);
}

TEST(Conversation, ToolsOfARowGoToTheSystemMessageThatReadsThem) {
  const std::string row = R"({"messages": [{"role": "user", "content": "a"}], "tools": "[{\"type\": \"function\"}]"})";
  EXPECT_EQ(Messages(row, ConversationForm::kMessages, ChatTemplate::kV32),
            R"([{"role":"system","content":"","tools":[{"type":"function"}]},{"role":"user","content":"a"}])");
  EXPECT_EQ(Messages(row, ConversationForm::kMessages), R"([{"role":"user","content":"a"}])");
}

// As a table's empty cell is: templates would take the key for a list of calls.
TEST(Conversation, ANullIsNoKey) {
  const std::string row =
      R"({"messages": [{"role":"user","content":"a","name":null},{"role":"assistant","content":"b","tool_calls":null}]})";
  EXPECT_EQ(Messages(row, ConversationForm::kMessages), R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])");
  const std::string call = R"([{"role":"assistant","content":null,"tool_calls":[]}])";
  EXPECT_EQ(Messages("{\"messages\": " + call + "}", ConversationForm::kMessages), call);
}

TEST(Conversation, ReasoningCountsAfterTheLastUser) {
  const auto shows = [](const char* messages) { return ShowsReasoning(ParseOrderedJson(messages, "test")); };
  EXPECT_TRUE(shows(R"([{"role": "user"}, {"role": "assistant", "reasoning_content": "r"}, {"role": "tool"}])"));
  EXPECT_FALSE(shows(R"([{"role": "assistant", "reasoning_content": "r"}, {"role": "user"}, {"role": "assistant"}])"));
}

}  // namespace
}  // namespace fathom
