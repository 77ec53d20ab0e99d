// AdamW as optax writes it (Loshchilov and Hutter, 2019):
//   m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2,  w -= lr ( m/(1-b1^t) / (sqrt(v/(1-b2^t) + eps_root) + eps) + decay w )
#pragma once

#include <cstdint>

#include "fathom/kernels/elementwise/rounding.h"
#include "fathom/tensor/view.h"

namespace fathom {

struct AdamWStep {
  float learning_rate, b1, b2, eps, eps_root, weight_decay;
  int64_t t;               // 1 for the first update
  float grad_scale;        // multiplies g first: clipping
  bool nesterov = false;   // in place of m/(1-b1^t): b1 m/(1-b1^(t+1)) + (1-b1) g/(1-b1^t)
  Rounding rounding = {};  // of w, m and v where they are BF16; each draws by a key of its own
};

// The same number of elements each, contiguous. w, m, v F32 or BF16 (updated in f32, then rounded), g F32.
struct AdamWTensors {
  View w, m, v;
  ConstView g;
  View bf16_copy = {};  // unless empty, gets the new w rounded to BF16
};
// Updates w, m, v.
void AdamWUpdate(const AdamWStep& step, const AdamWTensors& t);

// w -= lr (g * grad_scale + decay w): plain SGD.
struct SgdStep {
  float learning_rate, weight_decay, grad_scale;
  Rounding rounding = {};
};
void SgdUpdate(const SgdStep& step, View w, ConstView g, View bf16_copy);

}  // namespace fathom
