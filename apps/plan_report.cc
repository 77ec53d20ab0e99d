#include "apps/plan_report.h"

#include "fathom/spec/model_spec.h"

namespace fathom {

void AddModel(Report& report, const ModelConfig& config) {
  const ParameterCounts counts = CountParameters(config);
  report.Section("parameters");
  report.Count("total", counts.total);
  report.Count("active", counts.active);
  if (counts.mtp > 0) report.Count("mtp", counts.mtp);
}

int64_t ProgramBytes(bool alone) { return alone ? 15'000'000 : 27'000'000; }

void AddMemoryTotal(Report& report, const Machine& machine, int64_t total) {
  const int64_t here = machine.MemoryBytes();
  report.Bytes("in all", total, total <= here ? "fits this machine" : fmt::format("more than this machine's {}", ShownBytes(here)));
}

}  // namespace fathom
