// What a run reports: MaxText's console line, and one JSON object per step in metrics/metrics.jsonl.
#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "fathom/base/json.h"
#include "fathom/train/session.h"

namespace fathom {

// Scalars of one moment under MaxText's names ("learning/loss"), in the order they were added.
struct Scalars {
  int64_t step = 0;
  std::vector<std::pair<std::string, double>> values;
  void Add(std::string name, double value) { values.emplace_back(std::move(name), value); }
};

// A place where scalars go.
class ScalarSink {
 public:
  virtual ~ScalarSink() = default;
  virtual void Write(const Scalars& scalars) = 0;
  virtual void Flush() = 0;
};

// Appends a line per call. Throws Error(kResource).
std::unique_ptr<ScalarSink> OpenJsonlSink(const std::filesystem::path& path);

// Takes the lines of steps from `first` on out of such a file, if there is one: a killed run had gone further than its checkpoint. Throws
// Error(kResource), and Error(kInput) if other things are in it; the file is the old or the new one. What is no file (a pipe) stays as it
// is.
void DropStepsFrom(const std::filesystem::path& path, int64_t first);

// Of several ranks, by the seconds of a step in which they did not wait for others.
struct SlowestRank {
  int rank = -1;  // one rank
  double seconds = 0, mean = 0;
  double behind() const { return mean > 0 ? seconds / mean - 1 : 0; }  // the mean
};

struct StepTiming {
  double seconds = 0;  // of this step, data included
  double tflops = 0;   // arithmetic of the step, 1e12
  double tokens = 0;
  double peak_gflops = 0;   // this machine's measured product rate in the compute dtype
  double data_seconds = 0;  // of `seconds`: waiting for the batch
  SlowestRank slowest = {};
};

// What each axis with several ranks has cost this one so far, and all of them together.
struct MeshTraffic {
  std::array<Traffic, kAxes.size()> along = {};
  double seconds = 0, hidden_seconds = 0;
};
MeshTraffic TrafficOf(const Mesh& mesh);
// What it has cost since, of several ranks: comm/bytes_sent/<axis>, comm/seconds/<axis> in which the rank waited, comm/hidden_share/<axis>
// of the whole that passed beside arithmetic, perf/comm_seconds, perf/comm_hidden_seconds.
void AddTraffic(const Mesh& mesh, const MeshTraffic& before, Scalars& scalars);

Scalars StepScalars(int64_t step, const StepReport& report, const StepTiming& timing, double learning_rate);

// One pass over the held-out data.
struct EvalReport {
  LossSums sums;
  double text_bytes = 0;  // of what is predicted; 0: not known
  double seconds = 0;
  bool compares_mtp = false;  // whether a module's predictions were looked at

  double loss() const { return sums.main.loss / (sums.main.weight + 1e-8); }
  double bits_per_byte() const;
  double mtp_acceptance_percent() const { return 100 * sums.mtp_accepted / (sums.mtp_compared + 1e-8); }
};

Scalars EvalScalars(int64_t step, const EvalReport& report);

// "eval metrics after step: 3, loss=2.3026, perplexity=10.000, ...".
std::string EvalLine(int64_t step, const EvalReport& report);

// "completed step: 3, seconds: 1.23, TFLOP/s/device: ..., loss: ..." as MaxText prints it.
std::string ConsoleLine(int64_t step, const StepReport& report, const StepTiming& timing);

}  // namespace fathom
