// DeepSeek's routers: scores, group limit, the K chosen experts, their weights. All in F32.
// V2: softmax, greedy or group_limited_greedy (group score: its largest). V3 (report 2.1.2, equations 13-16): sigmoid, noaux_tc
// (choice by score + e_score_correction_bias, group score: sum of its two largest; weights from the unbiased scores).
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/view.h"

namespace fathom {

inline constexpr int64_t kMaxExperts = 4096;

struct RouterShape {
  int64_t experts, chosen;              // E <= kMaxExperts, K
  int64_t groups = 1, kept_groups = 1;  // groups == 1: no limit
  bool sigmoid = false;                 // else softmax
  bool group_top2 = false;              // group score: sum of the two largest (noaux_tc), else the largest
  bool normalize = false;               // weights / (sum + 1e-20)
  float scaling = 1;                    // routed_scaling_factor
};

// logits [T,E] F32, bias [E] F32 or empty. Overwrites scores [T,E] (before bias), ids [T,K] (by falling choice score, ties to the lower
// index; experts of groups not kept count as -inf) and weights [T,K]. A token with a logit or a biased score that is not finite gets NaN
// as weights: a choice by comparisons would hide it.
void RouterForward(const RouterShape& shape, ConstView logits, std::span<const float> bias, View scores, std::span<int32_t> ids,
                   std::span<float> weights);

// The choice alone, from scores [T,E] F32 as RouterForward writes them: overwrites ids [T,K].
void RouterChoice(const RouterShape& shape, ConstView scores, std::span<const float> bias, std::span<int32_t> ids);

// dweights [T,K] -> overwrites dlogits [T,E] F32. The choice is a constant. d_scores [T,E], unless empty, is a further gradient on the
// scores (a balance loss) and is added inside.
void RouterBackward(const RouterShape& shape, ConstView scores, std::span<const int32_t> ids, std::span<const float> dweights,
                    ConstView d_scores, View dlogits);

}  // namespace fathom
