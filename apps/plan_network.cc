#include "apps/plan_network.h"

#include <fmt/ranges.h>

namespace fathom {

int64_t PlannedRanks(const RunConfig& flags) {
  const int64_t hosts = flags.Int("hosts"), each = flags.Int("ranks_per_host"), ranks = hosts > 0 ? hosts * each : AskedRanks(flags);
  if (ranks % each != 0 && ranks > 1) Throw(ErrorCode::kUsage, "ranks_per_host={}: has to divide the mesh's {} ranks", each, ranks);
  return ranks;
}

double Network::Seconds(const AxisTraffic& traffic) const {
  double seconds = 0;
  for (const Traffic& t : traffic) {
    const auto far = static_cast<double>(t.far_bytes), near = static_cast<double>(t.bytes_sent - t.far_bytes);
    seconds += static_cast<double>(t.far_messages) * us * 1e-6 +
               static_cast<double>(host_ranks) * (far / gb_s + (near > 0 ? 2 * near / memory_gb_s : 0)) * 1e-9;
  }
  return seconds;
}

Network NetworkOf(const RunConfig& flags, Machine& machine) {
  const int64_t host_ranks = flags.Int("ranks_per_host");
  return {flags.Float("net_gb_s"), flags.Float("net_us"), host_ranks > 1 ? machine.MemoryGbS() : 1, host_ranks};
}

std::string NameOf(const MeshSizes& sizes) {
  std::string name;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i].all() > 1) name += fmt::format("{}{} {}", name.empty() ? "" : ", ", AxisName(kAxes[i]), sizes[i].all());
  }
  return name.empty() ? "one rank" : name;
}

std::string FlagsOf(const MeshSizes& sizes) {
  std::vector<std::string> flags;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i].all() > 1 || kAxes[i] == Axis::kFsdp)
      flags.push_back(fmt::format("ici_{}_parallelism={}", kAxes[i] == Axis::kStage ? "pipeline" : AxisName(kAxes[i]), sizes[i].all()));
  }
  return fmt::format("{}", fmt::join(flags, " "));
}

void AddMesh(Report& report, const RunConfig& flags, const MeshSizes& sizes, int largest) {
  const int64_t ranks = PlannedRanks(flags), host_ranks = flags.Int("ranks_per_host");
  report.Section("mesh");
  report.Count("ranks", ranks, fmt::format("{}; {} on each of {} hosts", NameOf(sizes), host_ranks, ranks / host_ranks));
  report.Count("largest rank", largest, "whose memory this is:");
}

void AddHostMemory(Report& report, const RunConfig& flags, const Machine& machine, int64_t rank_bytes) {
  const int64_t host_ranks = flags.Int("ranks_per_host"), total = host_ranks * rank_bytes, here = machine.MemoryBytes();
  if (host_ranks > 1) report.Bytes("of a host", total, total <= here ? "fits" : "more than its " + ShownBytes(here));
}

void AddNetwork(Report& report, const std::string& title, const MeshSizes& sizes, const AxisTraffic& traffic) {
  report.Section(title);
  for (size_t i = 0; i < sizes.size(); ++i) {
    const Traffic& t = traffic[i];
    if (sizes[i].all() > 1)
      report.Bytes(AxisName(kAxes[i]), t.bytes_sent, fmt::format("in {} messages; {} to other hosts", t.messages, ShownBytes(t.far_bytes)));
  }
}

void AddNetworkTime(Report& report, const std::string& what, const RunConfig& flags, double seconds, const std::string& note) {
  report.Seconds(what, seconds,
                 fmt::format("at {} GB/s a host and {} us a message{}", flags.Float("net_gb_s"), flags.Float("net_us"), note));
}

}  // namespace fathom
