// Softmax cross entropy with z-loss on a chunk of tokens, forward and backward in one pass over the logits.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/view.h"

namespace fathom {

struct CrossEntropySums {
  double loss = 0;             // sum over tokens of weight * (lse - logit[target])
  double z_loss = 0;           // sum of weight * z * lse^2
  double weight = 0;           // sum of weights
  float max_logit = -3.4e38f;  // of counted tokens

  CrossEntropySums& operator+=(const CrossEntropySums& other) {
    loss += other.loss;
    z_loss += other.z_loss;
    weight += other.weight;
    max_logit = max_logit > other.max_logit ? max_logit : other.max_logit;
    return *this;
  }
};

// What a loss is measured on.
struct LossTargets {
  std::span<const int32_t> ids;    // [T] the token to predict at each position
  std::span<const float> weights;  // [T] 0: not counted
  float z_loss = 0;                // z_loss_multiplier
  float scale = 1;                 // factor on every gradient: 1 / total weight of the step

  LossTargets Part(int64_t begin, int64_t end) const {
    const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
    return {ids.subspan(first, count), weights.subspan(first, count), z_loss, scale};
  }
};

// logits [T,V] F32. Without dlogits (empty) only sums. With it (F32|BF16, may be logits itself
// when F32): dlogits = weight * scale * ((1 + 2 z lse) softmax - onehot). nll [T], unless empty, is overwritten with lse - logit[target] of
// each token (0 where a token that is not counted has no target in 0..V-1). The row of an uncounted token gets a zero gradient.
CrossEntropySums CrossEntropy(ConstView logits, const LossTargets& targets, View dlogits, std::span<float> nll);

}  // namespace fathom
