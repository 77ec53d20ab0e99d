// fathom plan search=true: every mesh of so many ranks, the best first, and why.
#pragma once

#include <functional>

#include "apps/plan_network.h"

namespace fathom {

struct MeshCost {
  MeshSizes sizes;
  ModelConfig config;
  int64_t rank_bytes = 0;         // of the rank that takes the most
  double local = 0, network = 0;  // seconds: what a rank does itself, and what it sends
  AxisTraffic traffic = {};       // of the first
  double Seconds() const { return local + network; }
};

struct MeshSearch {
  std::string what, local;  // what is made as short as can be ("step"), and what a rank does itself ("arithmetic")
  std::function<bool(const MeshSizes&)> is_candidate;
  std::function<MeshCost(const MeshSizes&)> cost;  // throws Error(kUsage): the mesh cannot be
};

// Throws Error(kUsage) unless hosts= is given, and if no mesh can be.
void SearchMesh(const RunConfig& flags, Machine& machine, Report& report, const MeshSearch& search);

}  // namespace fathom
