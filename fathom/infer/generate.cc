#include "fathom/infer/generate.h"

#include <optional>

#include "fathom/base/clock.h"
#include "fathom/infer/stop_filter.h"

namespace fathom {
namespace {

void CheckPrompt(const Engine& engine, std::span<const int32_t> prompt, int64_t max_new_tokens) {
  if (prompt.empty()) Throw(ErrorCode::kUsage, "the prompt is empty: give prompt=, prompt_file= or prompt_ids=");
  if (static_cast<int64_t>(prompt.size()) + max_new_tokens > engine.capacity()) {
    Throw(ErrorCode::kUsage, "a prompt of {} tokens and {} new ones do not fit into {}", prompt.size(), max_new_tokens, engine.capacity());
  }
  for (const int32_t id : prompt) {
    if (id < 0 || id >= engine.config().vocab_size) Throw(ErrorCode::kUsage, "prompt token {}: the vocabulary is 0..{}", id, engine.config().vocab_size - 1);
  }
}

// Turns tokens into shown text; knows when a stop string has come.
class TextOut {
 public:
  TextOut(const Tokenizer* tokenizer, const std::vector<std::string>& stop, const std::function<void(std::string_view)>& show, std::string& text)
      : filter_(stop), show_(show), text_(text) {
    if (tokenizer != nullptr) stream_.emplace(*tokenizer, true);
  }
  // True: a stop string has come.
  bool Push(int32_t id) { return stream_ && Show(filter_.Push(stream_->Push(id))); }
  void Finish() {
    if (!stream_ || filter_.stopped()) return;
    Show(filter_.Push(stream_->Flush()));
    Show(filter_.Flush());
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

}  // namespace

GenerateResult Generate(Engine& engine, const Tokenizer* tokenizer, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text) {
  CheckPrompt(engine, prompt, options.max_new_tokens);
  GenerateResult result;
  result.prompt_ids.assign(prompt.begin(), prompt.end());
  result.ids.reserve(static_cast<size_t>(options.max_new_tokens));
  result.finish_reason = "length";
  TextOut out(tokenizer, options.stop, on_text, result.text);
  Sampler sampler(options.sampling, engine.config().vocab_size);
  engine.Reset();
  Stopwatch clock;
  std::span<const float> logits = engine.Append(prompt);
  result.prefill_seconds = clock.Seconds();
  clock.Restart();
  for (int64_t i = 0; i < options.max_new_tokens; ++i) {
    const int32_t id = sampler.Sample(logits, i);
    result.ids.push_back(id);
    if (id == engine.config().eos_token_id && !options.ignore_eos) {
      result.finish_reason = "stop";
      break;
    }
    if (out.Push(id)) {
      result.finish_reason = "stop";
      break;
    }
    if (i + 1 < options.max_new_tokens) logits = engine.Append({&result.ids.back(), 1});
  }
  result.decode_seconds = clock.Seconds();
  out.Finish();
  return result;
}

}  // namespace fathom
