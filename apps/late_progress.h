// Progress of work that may be short: shown once it has taken some seconds.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "fathom/base/clock.h"
#include "fathom/base/progress.h"

namespace fathom {

class LateProgress {
 public:
  // As Progress.
  LateProgress(std::string what, std::string unit, double total, double unit_size = 1)
      : what_(std::move(what)), unit_(std::move(unit)), total_(total), unit_size_(unit_size) {}
  void Update(double done) {
    if (!shown_ && clock_.Seconds() > kShort) shown_.emplace(what_, unit_, total_, unit_size_, done);
    if (shown_) shown_->Update(done);
  }
  void Finish() {
    if (shown_) shown_->Finish();
  }

 private:
  static constexpr double kShort = 5;  // seconds
  std::string what_, unit_;
  double total_, unit_size_;
  Stopwatch clock_;
  std::optional<Progress> shown_;
};

}  // namespace fathom
