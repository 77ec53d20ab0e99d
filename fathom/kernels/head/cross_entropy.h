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

// logits [T,V] F32; targets [T]; weight [T] (0: not counted). Without dlogits (empty) only sums. With it (F32|BF16, may be logits itself
// when F32): dlogits = weight * scale * ((1 + 2 z lse) softmax - onehot). nll [T], unless empty, is overwritten with lse - logit[target] of
// each token (0 where a token that is not counted has no target in 0..V-1). The row of an uncounted token gets a zero gradient.
CrossEntropySums CrossEntropy(ConstView logits, std::span<const int32_t> targets, std::span<const float> weight, float z_loss, float scale,
                              View dlogits, std::span<float> nll);

}  // namespace fathom
