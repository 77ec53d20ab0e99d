#include "fathom/layers/router_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace fathom {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Experts of groups that are left out get 0, so that they are chosen before kept ones with a negative score.
void MaskWithZero(const RouterShape& shape, std::span<float> choice) {
  const std::vector<int32_t> kept = Largest(GroupScores(shape, choice), shape.kept_groups);
  const int64_t size = shape.experts / shape.groups;
  for (int64_t e = 0; e < shape.experts; ++e) {
    if (std::ranges::count(kept, static_cast<int32_t>(e / size)) == 0) choice[static_cast<size_t>(e)] = 0;
  }
}

// Weights of the chosen from these values of all experts.
void WeightsFrom(const RouterShape& shape, std::span<const float> values, std::span<const int32_t> ids, std::span<float> weights) {
  double sum = 1e-20;
  for (const int32_t id : ids) sum += values[static_cast<size_t>(id)];
  const double factor = shape.normalize ? shape.scaling / sum : shape.scaling;
  for (size_t k = 0; k < ids.size(); ++k) weights[k] = static_cast<float>(values[static_cast<size_t>(ids[k])] * factor);
}

}  // namespace

std::vector<float> ChoiceScores(std::span<const float> scores, std::span<const float> bias) {
  std::vector<float> choice(scores.begin(), scores.end());
  for (size_t e = 0; e < bias.size(); ++e) choice[e] += bias[e];
  return choice;
}

std::vector<float> GroupScores(const RouterShape& shape, std::span<const float> choice) {
  const auto size = static_cast<size_t>(shape.experts / shape.groups);
  std::vector<float> groups;
  for (size_t begin = 0; begin < choice.size(); begin += size) {
    float first = kLowest, second = kLowest;
    for (const float c : choice.subspan(begin, size)) {
      second = std::max(second, std::min(first, c));
      first = std::max(first, c);
    }
    groups.push_back(shape.group_top2 ? first + second : first);
  }
  return groups;
}

std::vector<int32_t> Largest(std::span<const float> values, int64_t k) {
  std::vector<int32_t> ids(values.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto key = [&](int32_t i) {
    const float v = values[static_cast<size_t>(i)];
    return std::isnan(v) ? kLowest : v;
  };
  std::ranges::stable_sort(ids, [&](int32_t a, int32_t b) { return key(a) > key(b); });
  ids.resize(static_cast<size_t>(k));
  return ids;
}

void ApplyRoutingFaults(const LayerFaults& faults, const RouterShape& shape, ConstView scores, std::span<const float> bias,
                        std::span<int32_t> ids, std::span<float> weights) {
  if (!faults.bias_in_weights && !faults.group_mask_zero) return;
  for (int64_t t = 0; t < scores.dim(0); ++t) {
    const std::span<const float> own(scores.row<float>(t), static_cast<size_t>(shape.experts));
    const auto at = static_cast<size_t>(t * shape.chosen), count = static_cast<size_t>(shape.chosen);
    std::vector<float> choice = ChoiceScores(own, bias);
    if (faults.group_mask_zero) {
      MaskWithZero(shape, choice);
      std::ranges::copy(Largest(choice, shape.chosen), ids.begin() + static_cast<std::ptrdiff_t>(at));
    }
    WeightsFrom(shape, faults.bias_in_weights ? ChoiceScores(own, bias) : std::vector(own.begin(), own.end()), ids.subspan(at, count),
                weights.subspan(at, count));
  }
}

}  // namespace fathom
