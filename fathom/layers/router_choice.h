// The router's choice of one token step by step, which kernels/moe/router takes in one go: for who looks inside, and for the faults of
// LayerFaults.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fathom/kernels/moe/router.h"
#include "fathom/layers/options.h"

namespace fathom {

// score + bias of every expert: what the choice goes by. bias may be empty.
std::vector<float> ChoiceScores(std::span<const float> scores, std::span<const float> bias);
// One score per group.
std::vector<float> GroupScores(const RouterShape& shape, std::span<const float> choice);
// The k largest by falling value, ties to the lower index, NaN last.
std::vector<int32_t> Largest(std::span<const float> values, int64_t k);

// ids [T*K] and weights [T*K] as RouterForward wrote them, with scores [T,E] F32, become those of a router with these faults. Nothing
// happens without one.
void ApplyRoutingFaults(const LayerFaults& faults, const RouterShape& shape, ConstView scores, std::span<const float> bias,
                        std::span<int32_t> ids, std::span<float> weights);

}  // namespace fathom
