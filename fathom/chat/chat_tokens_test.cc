#include "fathom/chat/chat_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <span>

#include "fathom/base/error.h"

namespace fathom {
namespace {

Tokenizer TestTokenizer() { return Tokenizer::Load(std::filesystem::path(FATHOM_TEST_DATA) / "tokenizer" / "deepseek"); }

OrderedJson Conversation() {
  return ParseOrderedJson(R"([{"role":"system","content":"Be kind."},{"role":"user","content":"Hi <｜User｜>"},
      {"role":"assistant","content":" one\ntwo "},{"role":"user","content":"x"},{"role":"assistant","content":""},
      {"role":"user","content":"last"}])",
                          "test");
}

std::string Masked(const Tokenizer& tokenizer, const ChatTokens& tokens, uint8_t mask) {
  std::string text;
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    if (tokens.mask[i] == mask) text += tokenizer.TokenBytes(tokens.ids[i]);
  }
  return text;
}

TEST(EncodeChat, MasksAnswersAndTheirEnds) {
  const Tokenizer tokenizer = TestTokenizer();
  const RenderedChat chat = RenderChat(ChatTemplate::kV3, Conversation());
  const ChatTokens tokens = EncodeChat(tokenizer, chat);
  ASSERT_EQ(tokens.ids.size(), tokens.mask.size());
  EXPECT_EQ(tokens.ids, tokenizer.Encode(chat.text));  // answers lie between added tokens
  EXPECT_EQ(Masked(tokenizer, tokens, 1), " one\ntwo <｜end▁of▁sentence｜><｜end▁of▁sentence｜>");
}

// What V2 learns is what it is asked for: its prompt ends before the space, which the answer's first token begins with.
TEST(EncodeChat, AnAnswerFollowsItsPrompt) {
  const Tokenizer tokenizer = TestTokenizer();
  const OrderedJson question = ParseOrderedJson(R"([{"role":"user","content":"q"}])", "test");
  OrderedJson answered = question;
  answered.push_back({{"role", "assistant"}, {"content", "the answer"}});
  const RenderedChat chat = RenderChat(ChatTemplate::kV2, answered);
  const ChatTokens tokens = EncodeChat(tokenizer, chat);
  EXPECT_EQ(tokens.ids, tokenizer.Encode(chat.text));
  EXPECT_EQ(Masked(tokenizer, tokens, 1), " the answer<｜end▁of▁sentence｜>");
  const auto prompt = EncodeChat(tokenizer, RenderChat(ChatTemplate::kV2, question, {.add_generation_prompt = true})).ids;
  ASSERT_LT(prompt.size(), tokens.ids.size());
  EXPECT_TRUE(std::ranges::equal(prompt, std::span(tokens.ids).first(prompt.size())));
  EXPECT_EQ(tokens.mask[prompt.size()], 1);
  EXPECT_EQ(tokens.mask[prompt.size() - 1], 0);
}

// This tokenizer has no token </think>: its last character and the answer's first ones would be one token otherwise.
TEST(EncodeChat, NoTokenIsShared) {
  const Tokenizer tokenizer = TestTokenizer();
  const OrderedJson messages = ParseOrderedJson(R"([{"role":"user","content":"q"},{"role":"assistant","content":"> =="}])", "test");
  const RenderedChat chat = RenderChat(ChatTemplate::kV31, messages);
  EXPECT_EQ(Masked(tokenizer, EncodeChat(tokenizer, chat), 1), "> ==<｜end▁of▁sentence｜>");
}

TEST(EncodeRounds, EachRoundBeginsAnew) {
  const Tokenizer tokenizer = TestTokenizer();
  const ChatTokens tokens = EncodeRounds(tokenizer, ChatTemplate::kV3, Conversation());
  EXPECT_EQ(Masked(tokenizer, tokens, 1), " one\ntwo <｜end▁of▁sentence｜><｜end▁of▁sentence｜>");
  EXPECT_EQ(Masked(tokenizer, tokens, 0),
            "<｜begin▁of▁sentence｜>Be kind.<｜User｜>Hi <｜User｜><｜Assistant｜><｜begin▁of▁sentence｜><｜User｜>x<｜Assistant｜>"
            "<｜begin▁of▁sentence｜><｜User｜>last<｜Assistant｜>");
  OrderedJson late = Conversation();
  late.push_back({{"role", "system"}, {"content", "s"}});
  EXPECT_THROW(EncodeRounds(tokenizer, ChatTemplate::kV3, late), Error);
}

}  // namespace
}  // namespace fathom
