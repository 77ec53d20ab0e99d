// Progress of long work: one line of stderr redrawn in place on a terminal, a line of the log now and then elsewhere.
#pragma once

#include <cstdint>
#include <string>

#include "fathom/base/clock.h"
#include "fathom/base/terminal_line.h"

namespace fathom {

class Progress {
 public:
  // what: "converting"; unit: "GB", "steps"; unit_size: how much `done` makes one unit (1e9 for bytes shown as GB); before: what was done
  // by an earlier run.
  Progress(std::string what, std::string unit, double total, double unit_size = 1, double before = 0);

  // done counts up to total, `before` included; note is appended. Rate and time left come from the time since construction.
  void Update(double done, const std::string& note = "");
  void Finish();
  // Takes the line off the terminal; call before anything else prints there.
  void Clear() { line_.Clear(); }

 private:
  void Draw(double done, const std::string& note);
  std::string what_, unit_;
  double total_, unit_size_, before_;
  TerminalLine line_;
  double next_ = 0;
  Stopwatch clock_;
};

// "1h02m", "3m07s", "12s".
std::string FormatSeconds(double seconds);
// "1.50 GB", "23.1 MB", "812 B" (powers of ten).
std::string FormatBytes(double bytes);

}  // namespace fathom
