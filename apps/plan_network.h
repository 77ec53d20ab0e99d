// Ranks that fathom plan plans for: how many there are, on which hosts, and what their network takes.
#pragma once

#include "apps/plan_report.h"
#include "fathom/parallel/axis_traffic.h"

namespace fathom {

// hosts= times ranks_per_host=, or the ranks that the mesh's flags ask for. Throws Error(kUsage): a host would have part of a rank.
int64_t PlannedRanks(const RunConfig& flags);

// The cost of a message and of a byte between hosts; bytes within a host are copied through its memory.
struct Network {
  double gb_s, us, memory_gb_s;
  int64_t host_ranks;  // they share the host's link
  double Seconds(const AxisTraffic& traffic) const;
};
Network NetworkOf(const RunConfig& flags, Machine& machine);

// "expert 8, tensor 2"
std::string NameOf(const MeshSizes& sizes);
// The flags that ask for the mesh.
std::string FlagsOf(const MeshSizes& sizes);

// A section: the ranks and their hosts; `largest`: whose memory comes next.
void AddMesh(Report& report, const RunConfig& flags, const MeshSizes& sizes, int largest);
// In the section of the memory, if a host has several ranks of so many bytes: what it takes.
void AddHostMemory(Report& report, const RunConfig& flags, const Machine& machine, int64_t rank_bytes);
// A section: what a rank sends along each axis.
void AddNetwork(Report& report, const std::string& title, const MeshSizes& sizes, const AxisTraffic& traffic);
// In the section of times.
void AddNetworkTime(Report& report, const std::string& what, const RunConfig& flags, double seconds, const std::string& note = "");

}  // namespace fathom
