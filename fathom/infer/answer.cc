#include "fathom/infer/answer.h"

#include <algorithm>

namespace fathom {

Answer::Answer(const Tokenizer* tokenizer, std::span<const int32_t> prompt, const GenerateOptions& options, int64_t max_new_tokens,
               std::span<const int64_t> eos, ShowText show)
    : filter_(options.stop),
      show_(std::move(show)),
      eos_(options.ignore_eos ? std::span<const int64_t>() : eos),
      max_new_tokens_(max_new_tokens),
      ended_(max_new_tokens == 0) {
  if (tokenizer != nullptr) stream_.emplace(*tokenizer, true);
  result.prompt_ids.assign(prompt.begin(), prompt.end());
  result.finish_reason = "length";
}

bool Answer::Show(const std::string& piece) {
  result.text += piece;
  if (!piece.empty() && show_) show_(piece);
  return filter_.stopped();
}

void Answer::Take(int32_t id) {
  result.ids.push_back(id);
  const bool stop = std::ranges::count(eos_, id) > 0 || (stream_ && Show(filter_.Push(stream_->Push(id))));
  if (stop) result.finish_reason = "stop";
  ended_ = stop || room() == 0;
}

void Answer::End() {
  result.finish_reason = "stop";
  ended_ = true;
}

void Answer::Finish() {
  if (!stream_ || filter_.stopped()) return;
  if (Show(filter_.Push(stream_->Flush())) || Show(filter_.Flush())) result.finish_reason = "stop";
}

}  // namespace fathom
