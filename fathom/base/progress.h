// Progress of long work: one line redrawn in place on a terminal, a plain line now and then in a log.
#pragma once

#include <cstdint>
#include <string>

#include "fathom/base/clock.h"

namespace fathom {

class Progress {
 public:
  // what: "converting"; unit: "GB", "steps"; unit_size: how much `done` makes one unit (1e9 for bytes shown as GB).
  Progress(std::string what, std::string unit, double total, double unit_size = 1);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // done counts from 0 to total; note is appended. Rate and time left come from the time since construction.
  void Update(double done, const std::string& note = "");
  void Finish();

 private:
  void Draw(double done, const std::string& note);
  std::string what_, unit_;
  double total_, unit_size_;
  bool terminal_, drawn_ = false;
  double next_ = 0;
  Stopwatch clock_;
};

// "1h02m", "3m07s", "12s".
std::string FormatSeconds(double seconds);
// "1.50 GB", "23.1 MB", "812 B" (powers of ten).
std::string FormatBytes(double bytes);

}  // namespace fathom
