#include "fathom/infer/generate.h"

#include <algorithm>
#include <optional>

#include "fathom/base/clock.h"
#include "fathom/infer/speculate.h"
#include "fathom/infer/stop_filter.h"

namespace fathom {
namespace {

void CheckPrompt(const Engine& engine, std::span<const int32_t> prompt, int64_t max_new_tokens) {
  if (prompt.empty()) Throw(ErrorCode::kUsage, "the prompt is empty: give prompt=, prompt_file= or prompt_ids=");
  if (static_cast<int64_t>(prompt.size()) + max_new_tokens > engine.capacity()) {
    Throw(ErrorCode::kUsage, "a prompt of {} tokens and {} new ones do not fit into {}", prompt.size(), max_new_tokens, engine.capacity());
  }
  for (const int32_t id : prompt) {
    if (id < 0 || id >= engine.config().vocab_size)
      Throw(ErrorCode::kUsage, "prompt token {}: the vocabulary is 0..{}", id, engine.config().vocab_size - 1);
  }
}

// Turns tokens into shown text; knows when a stop string has come.
class TextOut {
 public:
  TextOut(const Tokenizer* tokenizer, const std::vector<std::string>& stop, const std::function<void(std::string_view)>& show,
          std::string& text)
      : filter_(stop), show_(show), text_(text) {
    if (tokenizer != nullptr) stream_.emplace(*tokenizer, true);
  }
  // True: a stop string has come.
  bool Push(int32_t id) { return stream_ && Show(filter_.Push(stream_->Push(id))); }
  // What was held back. True: a stop string was in it.
  bool Finish() {
    if (!stream_ || filter_.stopped() || Show(filter_.Push(stream_->Flush()))) return filter_.stopped();
    return Show(filter_.Flush());
  }

 private:
  bool Show(const std::string& piece) {
    text_ += piece;
    if (!piece.empty() && show_) show_(piece);
    return filter_.stopped();
  }
  std::optional<StreamDecoder> stream_;
  StopFilter filter_;
  const std::function<void(std::string_view)>& show_;
  std::string& text_;
};

// Produces the answer's tokens, with drafts or without.
class Continuation {
 public:
  Continuation(Engine& engine, const GenerateOptions& options) : engine_(engine), sampler_(options.sampling, engine.config().vocab_size) {
    if (options.draft_tokens > 0) speculator_.emplace(engine, sampler_, options.draft_tokens, options.sampling.seed);
  }
  int32_t First(std::span<const float> logits) { return sampler_.Sample(logits, 0); }
  // At most `room` tokens after `last`; valid until the next call.
  std::span<const int32_t> Next(int32_t last, int64_t index, int64_t room) {
    if (speculator_) return speculator_->Next(last, index, room);
    next_ = sampler_.Sample(engine_.Append({&last, 1}), index);
    return {&next_, 1};
  }
  void Report(GenerateResult& result) const {
    if (!speculator_) return;
    result.drafted = speculator_->drafted();
    result.accepted = speculator_->accepted();
    result.drafting_tokens_per_second = speculator_->cost().drafted().TokensPerSecond();
    result.plain_tokens_per_second = speculator_->cost().plain().TokensPerSecond();
  }

 private:
  Engine& engine_;
  Sampler sampler_;
  std::optional<Speculator> speculator_;
  int32_t next_ = 0;
};

}  // namespace

GenerateResult Generate(Engine& engine, const Tokenizer* tokenizer, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text) {
  CheckPrompt(engine, prompt, options.max_new_tokens);
  GenerateResult result;
  result.prompt_ids.assign(prompt.begin(), prompt.end());
  result.ids.reserve(static_cast<size_t>(options.max_new_tokens));
  result.finish_reason = "length";
  TextOut out(tokenizer, options.stop, on_text, result.text);
  Continuation continuation(engine, options);
  engine.Reset();
  Stopwatch clock;
  const std::span<const float> logits = engine.Append(prompt);
  result.prefill_seconds = clock.Seconds();
  clock.Restart();
  // True: the answer ends with this token.
  const auto take = [&](int32_t id) {
    result.ids.push_back(id);
    const bool eos = std::ranges::count(engine.config().eos_token_ids, id) > 0;
    const bool end = (eos && !options.ignore_eos) || out.Push(id);
    if (end) result.finish_reason = "stop";
    return end;
  };
  const auto made = [&] { return std::ssize(result.ids); };
  bool ended = options.max_new_tokens == 0 || take(continuation.First(logits));
  while (!ended && made() < options.max_new_tokens) {
    for (const int32_t id : continuation.Next(result.ids.back(), made(), options.max_new_tokens - made())) {
      ended = ended || take(id);
    }
  }
  result.decode_seconds = clock.Seconds();
  continuation.Report(result);
  if (out.Finish()) result.finish_reason = "stop";
  return result;
}

}  // namespace fathom
