// The answer to one prompt as it grows: tokens, text, and why it ended.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fathom/infer/sampler.h"
#include "fathom/infer/stop_filter.h"
#include "fathom/tokenizer/tokenizer.h"

namespace fathom {

struct GenerateOptions {
  int64_t max_new_tokens = 0;
  bool ignore_eos = false;
  std::vector<std::string> stop;  // the text ends before the first of these
  SamplingOptions sampling;
  int64_t draft_tokens = 0;  // drafted per pass; 0: none. The model must draft.
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

// Text as it comes, never half a character nor the beginning of a stop string.
using ShowText = std::function<void(std::string_view)>;

class Answer {
 public:
  // tokenizer may be null (ids only). eos: the ids that end an answer. What the arguments refer to outlives the answer.
  Answer(const Tokenizer* tokenizer, std::span<const int32_t> prompt, const GenerateOptions& options, int64_t max_new_tokens,
         std::span<const int64_t> eos, ShowText show);

  int64_t made() const { return std::ssize(result.ids); }
  int64_t room() const { return max_new_tokens_ - made(); }
  bool ended() const { return ended_; }
  // The next token of a growing answer; it may end it.
  void Take(int32_t id);
  // Here, as if a stop string had come.
  void End();
  // Shows what was held back. After the end, once.
  void Finish();

  GenerateResult result;

 private:
  bool Show(const std::string& piece);

  std::optional<StreamDecoder> stream_;
  StopFilter filter_;
  ShowText show_;
  std::span<const int64_t> eos_;
  int64_t max_new_tokens_;
  bool ended_ = false;
};

}  // namespace fathom
