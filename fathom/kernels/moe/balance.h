// Keeping experts equally busy: the auxiliary losses and the bias rule.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

enum class BalanceForm {
  kNormalizedScores,  // p = score / sum of scores (V2 report, equations 23-25: softmax scores; V3 report, equations 17-20: sigmoid scores)
  kSoftmaxOfScores,   // p = softmax(scores): MaxText
};

// (The V3 report and Megatron count the K largest scores, whatever groups and bias made of them; MaxText and V2 the experts that ran.)
struct BalanceInputs {
  ConstView scores;                // [T,E] F32 in 0..1, before bias
  int64_t chosen;                  // K
  std::span<const int32_t> ids;    // [T*K] the assignments that count; negative ones are left out
  std::span<const float> weight;   // [T] or empty: tokens of weight 0 are left out of f, P and n
  std::span<const int64_t> begin;  // [B+1] sequence b has rows begin[b]..begin[b+1]
};

// For each sequence of n tokens: f_e = E / (K n) times its assignments to expert e, P_e = mean over its tokens of p_e. Returns the mean
// over sequences of sum_e f_e P_e (1 when balanced) and overwrites d_scores [T,E] F32 with scale times its gradient towards the scores; f
// is a constant.
double BalanceLoss(BalanceForm form, const BalanceInputs& in, float scale, View d_scores, Arena& scratch);

// counts [E] += how often each expert appears in ids; negative ids are left out. weight [T] or empty, T = ids / chosen: tokens of weight 0,
// too.
void CountAssignments(std::span<const int32_t> ids, int64_t chosen, std::span<const float> weight, std::span<int64_t> counts);

// bias_e += rate * sign(mean count - count_e) (V3 report, section 2.1.2). counts over the whole batch and all ranks.
void UpdateRouterBias(float rate, std::span<const int64_t> counts, std::span<float> bias);

}  // namespace fathom
