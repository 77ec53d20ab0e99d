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

void AddExpertScalars(TrainSession& session, Scalars& scalars) {
  const LayerTotals& totals = session.totals();
  const ModelConfig& config = session.decoder().config();
  DecoderParams& params = session.params();
  const auto experts = static_cast<size_t>(config.n_routed_experts);
  for (size_t i = 0; i < totals.dropped.size(); ++i) {
    if (!config.is_moe_layer(static_cast<int64_t>(i))) continue;
    const auto counts = totals.expert_counts.subspan(i * experts, experts);
    const auto add = [&](const char* what, double value) { scalars.Add(fmt::format("moe/{}/{}", what, i), value); };
    const ExpertLoad load = LoadOf(counts);
    add("load_max_to_mean", load.max_to_mean);
    add("load_entropy", load.entropy);
    const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
    if (session.drops_tokens()) add("dropped_share", total > 0 ? static_cast<double>(totals.dropped[i]) / total : 0);
    const Tensor& bias =
        (i < params.layers.size() ? params.layers[i] : params.mtp[i - params.layers.size()].block).moe.e_score_correction_bias.value;
    if (bias.empty()) continue;
    const auto [low, high] = std::minmax_element(bias.data<float>(), bias.data<float>() + experts);
    add("bias_range", static_cast<double>(*high) - static_cast<double>(*low));
  }
}

}  // namespace fathom
