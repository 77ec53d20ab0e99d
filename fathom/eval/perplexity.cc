#include "fathom/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fathom/base/error.h"

namespace fathom {

double PerplexityResult::NllPerToken() const { return nll / static_cast<double>(targets); }
double PerplexityResult::Perplexity() const { return std::exp(NllPerToken()); }
double PerplexityResult::BitsPerByte() const { return nll / std::log(2.0) / static_cast<double>(target_bytes); }

void ForEachWindow(int64_t targets, int64_t window, int64_t stride,
                   const std::function<void(int64_t begin, int64_t end, int64_t counted)>& f) {
  int64_t counted = 0;
  for (int64_t begin = 0; counted < targets; begin += stride) {
    const int64_t end = std::min(begin + window, targets);
    f(begin, end, counted);
    counted = end;
  }
}

void CheckWindow(const ModelConfig& config, int64_t window, int64_t stride) {
  const int64_t context = config.max_position_embeddings;
  if (window < 1 || window > context) Throw(ErrorCode::kUsage, "a window of {} tokens: the model's context is {}", window, context);
  if (stride < 1 || stride > window) {
    Throw(ErrorCode::kUsage, "stride={}: from 1 to the window's {} tokens is possible", stride, window);
  }
}

PerplexityMeter::PerplexityMeter(ForwardModel& model, const PerplexityOptions& options) : model_(model), options_(options) {
  CheckWindow(model.config(), options.window, options.stride);
}

void PerplexityMeter::Add(std::span<const int32_t> ids, int64_t text_bytes, int64_t target_bytes) {
  ++result_.documents;
  const auto targets = static_cast<int64_t>(ids.size()) - 1;  // target i follows token i
  ForEachWindow(targets, options_.window, options_.stride, [&](int64_t begin, int64_t end, int64_t counted) {
    AddWindow(ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin + 1)), counted - begin);
    if (options_.progress)
      options_.progress(static_cast<double>(result_.text_bytes) + static_cast<double>(text_bytes * end) / static_cast<double>(targets));
  });
  result_.text_bytes += text_bytes;
  result_.target_bytes += target_bytes;
}

// ids: the window's tokens and the target after the last. Its first `uncounted` targets were counted before.
void PerplexityMeter::AddWindow(std::span<const int32_t> ids, int64_t uncounted) {
  const auto begin = static_cast<int64_t>(ids_.size()), length = static_cast<int64_t>(ids.size()) - 1;
  if (begin + length > options_.window) {
    Run();
    return AddWindow(ids, uncounted);
  }
  ids_.insert(ids_.end(), ids.begin(), ids.end() - 1);
  targets_.insert(targets_.end(), ids.begin() + 1, ids.end());
  for (int64_t i = 0; i < length; ++i) {
    positions_.push_back(static_cast<int32_t>(i));
    weights_.push_back(i < uncounted ? 0.0f : 1.0f);
  }
  segments_.push_back({begin, begin + length, begin, begin + length});
}

void PerplexityMeter::Run() {
  if (ids_.empty()) return;
  const bool mine = std::ssize(losses_) % options_.ranks.count == options_.ranks.rank;
  losses_.push_back(mine ? model_.Loss({ids_, targets_, weights_, {positions_, segments_}}).main.loss : 0);
  result_.targets += std::ranges::count(weights_, 1.0f);
  ids_.clear();
  targets_.clear();
  positions_.clear();
  weights_.clear();
  segments_.clear();
}

PerplexityResult PerplexityMeter::Finish() {
  Run();
  options_.ranks.sum(losses_);
  result_.nll = std::accumulate(losses_.begin(), losses_.end(), 0.0);
  if (result_.targets == 0) Throw(ErrorCode::kInput, "no document has two tokens or more: there is nothing to predict");
  return result_;
}

}  // namespace fathom
