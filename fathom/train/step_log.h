// What a run says of its steps: MaxText's line for some of them, and on a terminal one line that follows them all.
#pragma once

#include <string>

#include "fathom/base/clock.h"
#include "fathom/base/terminal_line.h"
#include "fathom/train/metrics.h"
#include "fathom/train/options.h"

namespace fathom {

class StepLog {
 public:
  // options: outlives this.
  StepLog(const TrainOptions& options, int64_t first_step) : options_(options), first_step_(first_step) {}

  // Logs the lines of the first step and the last, of each log_period-th, and of one that comes options.log_seconds after the line before.
  void Completed(int64_t step, const StepReport& report, const StepTiming& timing);
  // No step follows: logs the last one's line, unless it stands.
  void End();
  // Call before anything else prints.
  void Clear() { line_.Clear(); }

 private:
  void Draw(int64_t step, double loss);

  const TrainOptions& options_;
  int64_t first_step_;
  TerminalLine line_;
  std::string pending_;  // the last step's line, where it was left out
  Stopwatch clock_, since_log_, since_draw_;
  StepTiming drawn_;  // seconds, tflops and tokens of the steps since the last drawing
};

}  // namespace fathom
