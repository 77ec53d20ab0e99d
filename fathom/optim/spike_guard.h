// Which steps to skip because loss or gradient norm leaps: MaxText's skip_step_on_spikes, after OLMo.
#pragma once

#include <cstdint>
#include <vector>

namespace fathom {

struct SpikeRule {
  int64_t interval = 128;  // steps that are looked back on
  double factor = 6;       // standard deviations above their mean
};

class SpikeGuard {
 public:
  explicit SpikeGuard(const SpikeRule& rule);

  // Does one of the two stand more than `factor` standard deviations (of a sample) above the mean of the last `interval` steps? Never
  // before half of them, at least two, are there. Remembers both, a spike too, so that a new level becomes the rule. Both must be finite.
  bool IsSpike(double loss, double grad_norm);

  // State for checkpoints: the last values, oldest first, as many of each.
  std::vector<double> losses() const { return Ordered(losses_); }
  std::vector<double> grad_norms() const { return Ordered(grad_norms_); }
  int64_t count() const { return count_; }  // steps remembered so far
  // Goes on from there. False: they are not what the same rule has saved.
  bool Restore(int64_t count, const std::vector<double>& losses, const std::vector<double>& grad_norms);

 private:
  bool Leaps(const std::vector<double>& window, double value) const;
  std::vector<double> Ordered(const std::vector<double>& window) const;
  int64_t Held() const;

  SpikeRule rule_;
  std::vector<double> losses_, grad_norms_;  // [interval], the newest in place of the oldest
  int64_t count_ = 0;
};

}  // namespace fathom
