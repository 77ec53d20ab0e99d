#include "fathom/eval/diagnose_logits.h"

#include <algorithm>
#include <utility>

namespace fathom {
namespace {

// NaN is the worst.
bool LeavesLess(const TriedFault& a, const TriedFault& b) { return a.max_kl < b.max_kl || (b.max_kl != b.max_kl && a.max_kl == a.max_kl); }

}  // namespace

ForwardModel WithFault(const ForwardModel& model, const LayerOptions& layers, const KnownFault& fault) {
  ModelParts parts{model.config(), layers, model.params()};
  fault.build_in(parts);
  return ForwardModel(std::move(parts.params), parts.config, model.compute(), parts.layers);
}

FaultSearch::FaultSearch(const ForwardModel& model, const LayerOptions& layers, const LogitBars& bars)
    : model_(model), layers_(layers), bars_(bars) {
  for (const KnownFault& fault : KnownFaults()) {
    if (!fault.can_occur(model.config())) continue;
    faults_.push_back(&fault);
    results_.push_back({fault.name, fault.what});
  }
}

void FaultSearch::Add(const GoldenLogits& golden, FunctionRef<void()> after_each) {
  for (size_t i = 0; i < faults_.size(); ++i) {
    const LogitReport report = CompareLogits(golden.logits, WithFault(model_, layers_, *faults_[i]).LogitRows(golden.tokens), bars_);
    TriedFault& result = results_[i];
    if (!(report.max_kl <= result.max_kl)) result.max_kl = report.max_kl;
    result.within_the_bars = result.within_the_bars && report.Passes(bars_);
    after_each();
  }
}

std::vector<TriedFault> FaultSearch::Tried() const {
  std::vector<TriedFault> tried;
  for (const TriedFault& result : results_) {
    const auto same = std::ranges::find(tried, result.name, &TriedFault::name);
    if (same == tried.end()) {
      tried.push_back(result);
    } else if (LeavesLess(result, *same)) {
      *same = result;
    }
  }
  return tried;
}

std::optional<TriedFault> FaultSearch::Cause(double without) const {
  constexpr double kMostLeft = 0.25;  // a bar that rounding just misses is met by many a fault
  std::optional<TriedFault> cause;
  for (const TriedFault& result : results_) {
    if (result.within_the_bars && result.max_kl <= kMostLeft * without && (!cause || LeavesLess(result, *cause))) cause = result;
  }
  const auto is_rival = [&](const TriedFault& r) { return r.within_the_bars && r.name != cause->name && r.max_kl <= cause->max_kl; };
  return cause && std::ranges::any_of(results_, is_rival) ? std::nullopt : cause;
}

}  // namespace fathom
