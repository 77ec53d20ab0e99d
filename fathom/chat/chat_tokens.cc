#include "fathom/chat/chat_tokens.h"

#include <algorithm>
#include <span>

#include "fathom/base/error.h"

namespace fathom {

ChatTokens EncodeChat(const Tokenizer& tokenizer, const RenderedChat& chat) {
  ChatTokens out;
  size_t done = 0;
  const auto append = [&](size_t end, uint8_t mask) {
    tokenizer.EncodeTo(std::string_view(chat.text).substr(done, end - done), {}, out.ids);
    out.mask.resize(out.ids.size(), mask);
    done = end;
  };
  for (const AnswerSpan& answer : chat.answers) {
    append(answer.begin, 0);
    append(answer.end, 1);
  }
  append(chat.text.size(), 0);
  return out;
}

namespace {

void Append(const std::vector<int32_t>& ids, uint8_t mask, ChatTokens& out) {
  out.ids.insert(out.ids.end(), ids.begin(), ids.end());
  out.mask.resize(out.ids.size(), mask);
}

}  // namespace

ChatTokens EncodeRounds(const Tokenizer& tokenizer, ChatTemplate which, const OrderedJson& messages, ChatOptions options) {
  if (!messages.is_array()) Throw(ErrorCode::kInput, "\"messages\" is no array of messages");
  const auto encode = [&](const OrderedJson& round, bool prompt) {
    options.add_generation_prompt = prompt;
    return tokenizer.Encode(RenderChat(which, round, options).text);
  };
  ChatTokens out;
  OrderedJson round = OrderedJson::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    const OrderedJson role = messages[i].is_object() ? messages[i].value("role", OrderedJson()) : OrderedJson();
    if (role == "system" && i > 0) Throw(ErrorCode::kInput, "message {}: a system message that isn't the first", i);
    const std::vector<int32_t> prompt = role == "assistant" ? encode(round, true) : std::vector<int32_t>();
    round.push_back(messages[i]);
    if (role == "user") Append(encode(round, true), 0, out);
    if (role != "assistant") continue;
    const std::vector<int32_t> all = encode(round, false);
    const auto answer = std::ranges::mismatch(all, prompt).in1;
    Append(tokenizer.Encode(tokenizer.Decode(std::span(answer, all.end()))), 1, out);
    round.clear();
  }
  return out;
}

}  // namespace fathom
