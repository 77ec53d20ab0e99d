#include "apps/plan_search.h"

#include <map>

#include "fathom/base/log.h"

namespace fathom {
namespace {

// Every way to write `ranks` as a product over the axes from `axis` on.
void Factor(int64_t ranks, size_t axis, MeshSizes& sizes, std::vector<MeshSizes>& list) {
  if (axis + 1 == sizes.size()) {
    sizes[axis].ici = ranks;
    list.push_back(sizes);
    return;
  }
  for (int64_t n = 1; n <= ranks; ++n) {
    if (ranks % n != 0) continue;
    sizes[axis].ici = n;
    Factor(ranks / n, axis + 1, sizes, list);
  }
}

std::vector<MeshSizes> Candidates(int64_t ranks, const MeshSearch& search) {
  std::vector<MeshSizes> all;
  MeshSizes sizes;
  Factor(ranks, 0, sizes, all);
  std::erase_if(all, [&](const MeshSizes& mesh) { return !search.is_candidate(mesh); });
  return all;
}

struct Found {
  std::vector<MeshCost> fitting, large;    // by time; by memory
  std::map<std::string, int64_t> refused;  // why, and how many
};

Found TryMeshes(const RunConfig& flags, const Machine& machine, const MeshSearch& search) {
  const std::vector<MeshSizes> all = Candidates(PlannedRanks(flags), search);
  Found found;
  Progress progress("planning", "meshes", static_cast<double>(all.size()));
  for (size_t i = 0; i < all.size(); ++i) {
    progress.Update(static_cast<double>(i));
    try {
      const QuietLog quiet;
      MeshCost cost = search.cost(all[i]);
      const bool fits = cost.rank_bytes * flags.Int("ranks_per_host") <= machine.MemoryBytes();
      (fits ? found.fitting : found.large).push_back(std::move(cost));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUsage) throw;
      ++found.refused[error.what()];
    }
  }
  progress.Finish();
  std::ranges::sort(found.fitting, {}, &MeshCost::Seconds);
  std::ranges::sort(found.large, {}, &MeshCost::rank_bytes);
  return found;
}

Json JsonOf(const MeshSearch& search, const MeshCost& cost) {
  Json json = {{"memory_bytes", cost.rank_bytes},
               {search.local + "_seconds", cost.local},
               {"network_seconds", cost.network},
               {search.what + "_seconds", cost.Seconds()}};
  for (size_t i = 0; i < cost.sizes.size(); ++i) {
    json["mesh"][AxisName(kAxes[i])] = cost.sizes[i].all();
    if (cost.sizes[i].all() > 1) json["bytes_sent"][AxisName(kAxes[i])] = cost.traffic[i].bytes_sent;
  }
  return json;
}

void AddTable(Report& report, const std::string& title, const std::string& key, const MeshSearch& search,
              const std::vector<MeshCost>& costs) {
  constexpr size_t kShown = 12;
  if (costs.empty()) return;
  report.Section(title);
  Json list = Json::array();
  std::string text = fmt::format("  {:<36} {:>12} {:>12} {:>12} {:>12}", "mesh", "a rank", search.local, "network", search.what);
  for (const MeshCost& cost : costs) {
    list.push_back(JsonOf(search, cost));
    if (list.size() <= kShown)
      text += fmt::format("\n  {:<36} {:>12} {:>12} {:>12} {:>12}", NameOf(cost.sizes), ShownBytes(cost.rank_bytes),
                          ShownSeconds(cost.local), ShownSeconds(cost.network), ShownSeconds(cost.Seconds()));
  }
  if (costs.size() > kShown) text += fmt::format("\n  and {} more (json= has them)", costs.size() - kShown);
  report.Line(text, key, std::move(list));
}

// What the best mesh has over its neighbours.
std::string Why(const Found& found, const Machine& machine, const std::string& what) {
  const MeshCost& best = found.fitting[0];
  std::string why =
      fmt::format("{}: the shortest {} of {} meshes that fit into {}: {}, of which the network takes {}", NameOf(best.sizes), what,
                  found.fitting.size(), ShownBytes(machine.MemoryBytes()), ShownSeconds(best.Seconds()), ShownSeconds(best.network));
  if (found.fitting.size() > 1)
    why += fmt::format("; {} takes {}", NameOf(found.fitting[1].sizes), ShownSeconds(found.fitting[1].Seconds()));
  const auto faster = std::ranges::min_element(found.large, {}, &MeshCost::Seconds);
  if (faster != found.large.end() && faster->Seconds() < best.Seconds()) {
    why += fmt::format("; {} would take {}, and {} a rank", NameOf(faster->sizes), ShownSeconds(faster->Seconds()),
                       ShownBytes(faster->rank_bytes));
  }
  return why;
}

}  // namespace

void SearchMesh(const RunConfig& flags, Machine& machine, Report& report, const MeshSearch& search) {
  if (flags.Int("hosts") < 1) Throw(ErrorCode::kUsage, "search=true needs hosts= (and ranks_per_host=): how many ranks there are");
  const Found found = TryMeshes(flags, machine, search);
  if (found.fitting.empty() && found.large.empty()) {
    const std::string why = found.refused.empty() ? "none that is offered has as many" : found.refused.begin()->first;
    Throw(ErrorCode::kUsage, "hosts={}: no mesh of {} ranks can be: {}", flags.Int("hosts"), PlannedRanks(flags), why);
  }
  AddModel(report, (found.fitting.empty() ? found.large : found.fitting)[0].config);
  AddTable(report, "meshes that fit", "fit", search, found.fitting);
  AddTable(report, fmt::format("more than a host's {}", ShownBytes(machine.MemoryBytes())), "too_large", search, found.large);
  report.Section("best");
  if (found.fitting.empty()) {
    report.Line(fmt::format("  none of {} meshes fits; {} takes the least: {} a rank", found.large.size(), NameOf(found.large[0].sizes),
                            ShownBytes(found.large[0].rank_bytes)),
                "mesh", Json());
    return;
  }
  const MeshCost& best = found.fitting[0];
  report.Line("  " + Why(found, machine, search.what), "why", Why(found, machine, search.what));
  report.Line("  " + FlagsOf(best.sizes), "flags", FlagsOf(best.sizes));
  report.Line("", "mesh", JsonOf(search, best)["mesh"]);
}

}  // namespace fathom
