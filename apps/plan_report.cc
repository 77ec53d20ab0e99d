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

// Measured with small models, oneDNN 2 and Open MPI 4.1.
int64_t ProgramBytes(Program program, bool alone) {
  return (program == Program::kTraining ? 32'000'000 : 15'000'000) + (alone ? 0 : 12'000'000);
}

void AddProgram(Report& report, Program program, bool alone) {
  report.Bytes("program", ProgramBytes(program, alone), alone ? "and its libraries" : "and its libraries, MPI's among them");
}

void AddMemoryTotal(Report& report, const Machine& machine, int64_t total) {
  const int64_t here = machine.MemoryBytes();
  report.Bytes("in all", total, total <= here ? "fits this machine" : fmt::format("more than this machine's {}", ShownBytes(here)));
}

}  // namespace fathom
