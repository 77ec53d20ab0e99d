#include "fathom/chat/completion.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/chat/test_data.h"

namespace fathom {
namespace {

TEST(ParseCompletion, V32AsTheOriginal) {
  for (const OrderedJson& row : ChatTestRows("parse.jsonl")) {
    const auto parse = [&] {
      return CompletionMessage(ParseCompletion(ChatTemplate::kV32, row["text"].get<std::string>(), row["thinking_mode"] == "thinking"));
    };
    if (!row.contains("error")) {
      EXPECT_EQ(parse(), row["parsed"]) << row.dump();
      continue;
    }
    try {
      parse();
      ADD_FAILURE() << row.dump();
    } catch (const Error& e) {
      EXPECT_EQ(row["error"], e.what()) << row.dump();
    }
  }
}

// An answer that is rendered and read again is the same answer.
TEST(ParseCompletion, IsTheReverseOfRendering) {
  const OrderedJson calls = ParseOrderedJson(
      R"([{"type":"function","function":{"name":"f","arguments":"{\"a\": \"x\\ny\", \"b\": [1, null]}"}},{"type":"function","function":{"name":"g","arguments":"{}"}}])",
      "test");
  for (const ChatTemplate which : {ChatTemplate::kV3March, ChatTemplate::kV31, ChatTemplate::kV32}) {
    OrderedJson answer = {{"role", "assistant"}, {"content", "Let me see."}, {"reasoning_content", ""}, {"tool_calls", calls}};
    const RenderedChat chat = RenderChat(which, OrderedJson::array({{{"role", "user"}, {"content", "u"}}, answer}));
    ASSERT_EQ(chat.answers.size(), 1U);
    EXPECT_EQ(CompletionMessage(ParseCompletion(which, std::string_view(chat.text).substr(chat.answers[0].begin), false)), answer)
        << ChatTemplateName(which);
  }
}

TEST(ParseCompletion, V2WritesTheTemplatesSpace) {
  EXPECT_EQ(ParseCompletion(ChatTemplate::kV2, "  5<｜end▁of▁sentence｜>", false).content, " 5");
}

TEST(ParseCompletion, ReasoningEndsWhereThinkEnds) {
  const Completion r1 = ParseCompletion(ChatTemplate::kR1, "why\n</think>\n\n4</think>5<｜end▁of▁sentence｜>", false);
  EXPECT_EQ(r1.reasoning_content, "why\n");
  EXPECT_EQ(r1.content, "\n\n4</think>5");
  EXPECT_EQ(ParseCompletion(ChatTemplate::kV31, "a</think>b", false).content, "a</think>b");
  EXPECT_EQ(ParseCompletion(ChatTemplate::kV31, "a</think>b", true).reasoning_content, "a");
  EXPECT_THROW(ParseCompletion(ChatTemplate::kR1, "cut off", false), Error);
  EXPECT_THROW(ParseCompletion(ChatTemplate::kV3, "a<｜end▁of▁sentence｜>b", false), Error);
}

// Every prefix, and every single character left out, of a full completion is read or refused.
TEST(ParseCompletion, DamagedTextIsReadOrRefused) {
  const std::string v32 =
      "r</think>c\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" "
      "string=\"true\">v</｜DSML｜parameter>\n"
      "<｜DSML｜parameter name=\"b\" "
      "string=\"false\">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls><｜end▁of▁sentence｜>";
  const std::string r1 =
      "r</think>c<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜>\n"
      "<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>";
  EXPECT_EQ(ParseCompletion(ChatTemplate::kR1, r1, true).tool_calls.size(), 2U);
  for (const auto& [which, text] : {std::pair{ChatTemplate::kV32, v32}, {ChatTemplate::kR1, r1}, {ChatTemplate::kV31, r1}}) {
    for (size_t i = 0; i < text.size(); ++i) {
      for (const std::string& damaged : {text.substr(0, i), text.substr(i), text.substr(0, i) + text.substr(i + 1)}) {
        try {
          ParseCompletion(which, damaged, i % 2 == 0);
        } catch (const Error& e) {
          EXPECT_EQ(e.code(), ErrorCode::kInput);
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom
