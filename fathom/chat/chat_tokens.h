// Conversations as token ids with the mask of supervised fine-tuning.
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/chat/chat_template.h"
#include "fathom/tokenizer/tokenizer.h"

namespace fathom {

struct ChatTokens {
  std::vector<int32_t> ids;
  std::vector<uint8_t> mask;  // 1: a token of an answer, its end-of-sentence included; as long as ids
};

// Answers are encoded on their own, as the model writes them after the prompt's last token: no token holds bytes of both.
ChatTokens EncodeChat(const Tokenizer& tokenizer, const RenderedChat& chat);

// As MaxText does it: each round (what stands before an answer, and the answer) rendered alone, with its own BOS. The prompt is the
// rendering with the generation prompt; the answer is what the whole round's tokens have beyond those they share with it, decoded and
// encoded again. Throws Error(kInput) as RenderChat does, and for a system message that isn't the first.
ChatTokens EncodeRounds(const Tokenizer& tokenizer, ChatTemplate which, const OrderedJson& messages, ChatOptions options = {});

}  // namespace fathom
