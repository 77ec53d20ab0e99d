// What a run's folder tells about it: the journal that `train` keeps in metrics/ (run.json, metrics.jsonl, experts.jsonl,
// samples.jsonl).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "fathom/base/json.h"

namespace fathom {

// Values of one scalar, by ascending step; not all finite.
using Series = std::vector<std::pair<int64_t, double>>;

// How often the experts of one layer were chosen: counts[column][expert], a column per noted step.
struct ExpertHistory {
  int64_t layer;
  std::vector<int64_t> steps;
  std::vector<std::vector<double>> counts;
};

// What the model wrote after a step.
struct TextSample {
  int64_t step;
  std::string prompt, text;
};

struct RunRecord {
  std::string name;
  Json about;  // run.json; null where a run has none
  std::map<std::string, Series> scalars;
  std::vector<ExpertHistory> experts;
  std::vector<TextSample> samples;
  int64_t last_step = -1;
  int64_t unread_lines = 0;  // torn, as a killed run or a full disk may leave its last one

  // Empty where the run never wrote it.
  const Series& Of(const std::string& scalar) const;
};

// Throws Error(kInput): no run's folder, a metrics.jsonl without a single step.
RunRecord ReadRun(const std::filesystem::path& folder);

}  // namespace fathom
