#include "fathom/optim/spike_guard.h"

#include <algorithm>
#include <cmath>

namespace fathom {

SpikeGuard::SpikeGuard(const SpikeRule& rule)
    : rule_(rule), losses_(static_cast<size_t>(rule.interval)), grad_norms_(static_cast<size_t>(rule.interval)) {}

int64_t SpikeGuard::Held() const { return std::min(count_, rule_.interval); }

bool SpikeGuard::Leaps(const std::vector<double>& window, double value) const {
  const auto n = static_cast<double>(Held());
  const auto end = window.begin() + static_cast<std::ptrdiff_t>(Held());
  double mean = 0, squares = 0;
  for (auto x = window.begin(); x != end; ++x) mean += *x / std::max(1.0, n);
  for (auto x = window.begin(); x != end; ++x) squares += (*x - mean) * (*x - mean);
  return !(value - mean <= rule_.factor * std::sqrt(squares / std::max(1.0, n - 1)));
}

bool SpikeGuard::IsSpike(double loss, double grad_norm) {
  const bool knows = count_ + 1 >= std::max<int64_t>(2, rule_.interval / 2);
  const bool spike = knows && (Leaps(losses_, loss) || Leaps(grad_norms_, grad_norm));
  const auto at = static_cast<size_t>(count_++ % rule_.interval);
  losses_[at] = loss;
  grad_norms_[at] = grad_norm;
  return spike;
}

std::vector<double> SpikeGuard::Ordered(const std::vector<double>& window) const {
  std::vector<double> ordered;
  for (int64_t i = count_ - Held(); i < count_; ++i) ordered.push_back(window[static_cast<size_t>(i % rule_.interval)]);
  return ordered;
}

bool SpikeGuard::Restore(int64_t count, const std::vector<double>& losses, const std::vector<double>& grad_norms) {
  if (count < 0 || std::ssize(losses) != std::min(count, rule_.interval) || losses.size() != grad_norms.size()) return false;
  count_ = count;
  for (int64_t i = count - Held(); i < count; ++i) {
    const auto to = static_cast<size_t>(i % rule_.interval), from = static_cast<size_t>(i - (count - Held()));
    losses_[to] = losses[from];
    grad_norms_[to] = grad_norms[from];
  }
  return true;
}

}  // namespace fathom
