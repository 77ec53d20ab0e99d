// Rounding to BF16 by chance: up or down so that the result is right on average. Updates far below half a step of BF16, which rounding to
// the nearest loses, then add up (Gupta et al., 2015).
#pragma once

#include <cstdint>

#include "fathom/tensor/view.h"

namespace fathom {

// How what is stored as BF16 is rounded. What is stored as F32 is not.
struct Rounding {
  bool by_chance = false;  // false: to the nearest, ties to even
  uint32_t key = 0;        // element i of a tensor draws by (key, i) alone
  int64_t first = 0;       // what is rounded begins at that element of the tensor

  Rounding WithKey(uint32_t other) const { return {by_chance, other, first}; }
  Rounding From(int64_t element) const { return {by_chance, key, element}; }
};

// y = scale * x; contiguous, the same number of elements, F32 or BF16. x may be y.
void ScaleInto(float scale, ConstView x, View y, const Rounding& rounding);

}  // namespace fathom
