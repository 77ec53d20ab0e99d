// From a prompt to text, token by token.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fathom/infer/engine.h"
#include "fathom/infer/sampler.h"
#include "fathom/tokenizer/tokenizer.h"

namespace fathom {

struct GenerateOptions {
  int64_t max_new_tokens = 0;
  bool ignore_eos = false;
  std::vector<std::string> stop;  // the text ends before the first of these
  SamplingOptions sampling;
  int64_t draft_tokens = 0;  // drafted per pass; 0: none. The engine must draft.
};

struct GenerateResult {
  std::vector<int32_t> prompt_ids, ids;  // ids: new tokens, the end of sentence included
  std::string text;                      // of the new tokens, without stop string and end of sentence; empty without tokenizer
  std::string finish_reason;             // "stop" or "length"
  int64_t drafted = 0, accepted = 0;     // tokens
  double drafting_tokens_per_second = 0, plain_tokens_per_second = 0;  // of passes with and without drafts; 0: none were timed
  double prefill_seconds = 0, decode_seconds = 0;
  double PrefillTokensPerSecond() const { return static_cast<double>(prompt_ids.size()) / prefill_seconds; }
  // The first new token comes from the prefill; the others are decoded.
  double DecodeTokensPerSecond() const { return ids.size() > 1 ? static_cast<double>(ids.size() - 1) / decode_seconds : 0; }
};

// tokenizer may be null (ids only). on_text gets the text as it comes, never half a character nor the beginning of a stop string.
// Throws Error(kUsage): an empty prompt, a prompt that leaves no room.
GenerateResult Generate(Engine& engine, const Tokenizer* tokenizer, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text);

}  // namespace fathom
