// The trace of some steps of a run.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fathom/base/trace.h"

namespace fathom {

struct TraceWindowOptions {
  std::filesystem::path folder;  // made when there is something to write
  std::string what = "step";     // what is counted
  int64_t first = 0, count = 0;  // count 0: nothing is traced
  int rank = 0;
};

class TraceWindow {
 public:
  explicit TraceWindow(TraceWindowOptions options) : options_(std::move(options)) {}

  // Step `step` begins, and the one before has ended: until the next call this thread's slices are recorded, if the step is one of the
  // window. Behind its last step the trace is written to <folder>/<what>s_<first>-<last>.json, of a rank other than 0 with its number; that
  // it cannot be is a warning.
  void Begin(int64_t step);
  // No step follows: writes what there is of an open window, and logs where time went.
  void End();

 private:
  void Write();
  TraceWindowOptions options_;
  std::optional<Trace> trace_;
  std::optional<TraceScope> scope_;
  std::optional<TraceSlice> slice_;
  int64_t last_ = -1;
  std::vector<std::string> summary_;
};

}  // namespace fathom
