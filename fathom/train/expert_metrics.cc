#include "fathom/train/expert_metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fathom {

ExpertLoad LoadOf(std::span<const int64_t> counts) {
  const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  const auto experts = static_cast<double>(counts.size());
  if (total == 0) return {};
  ExpertLoad load;
  load.max_to_mean = static_cast<double>(*std::ranges::max_element(counts)) * experts / total;
  for (const int64_t n : counts) {
    const double share = static_cast<double>(n) / total;
    if (n > 0) load.entropy -= share * std::log(share);
  }
  load.entropy = counts.size() > 1 ? load.entropy / std::log(experts) : 1;
  return load;
}

namespace {

// Largest minus smallest bias of each layer's router, then 1 for each layer that has any; of the layers of all ranks.
std::vector<double> BiasRanges(TrainSession& session, size_t layers) {
  DecoderParams& params = session.params();
  std::vector<double> ranges(2 * layers);
  for (size_t i = 0; i < layers; ++i) {
    const BlockParams& block = i < params.layers.size() ? params.layers[i] : params.mtp[i - params.layers.size()].block;
    const Tensor& bias = block.moe.e_score_correction_bias.value;
    if (bias.empty()) continue;
    const auto [low, high] = std::minmax_element(bias.data<float>(), bias.data<float>() + bias.NumElements());
    ranges[i] = static_cast<double>(*high) - static_cast<double>(*low);
    ranges[layers + i] = 1;
  }
  session.mesh().comm(Axis::kStage).AllSum(std::span(ranges));
  return ranges;
}

}  // namespace

void AddExpertScalars(TrainSession& session, Scalars& scalars) {
  const LayerTotals& totals = session.totals();
  const ModelConfig& config = session.decoder().config();
  const size_t layers = totals.dropped.size();
  const std::vector<double> ranges = BiasRanges(session, layers);
  const auto experts = static_cast<size_t>(config.n_routed_experts);
  for (size_t i = 0; i < layers; ++i) {
    if (!config.is_moe_layer(static_cast<int64_t>(i))) continue;
    const auto counts = totals.expert_counts.subspan(i * experts, experts);
    const auto add = [&](const char* what, double value) { scalars.Add(fmt::format("moe/{}/{}", what, i), value); };
    const ExpertLoad load = LoadOf(counts);
    add("load_max_to_mean", load.max_to_mean);
    add("load_entropy", load.entropy);
    const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
    if (session.drops_tokens()) add("dropped_share", total > 0 ? static_cast<double>(totals.dropped[i]) / total : 0);
    if (ranges[layers + i] > 0) add("bias_range", ranges[i]);
  }
}

}  // namespace fathom
