#pragma once

#include <cmath>

#include "fathom/base/rng.h"

namespace fathom {

// Draws of element i lie at counters i + tries * 2^40, so that streams of different elements never meet.
inline double TruncatedNormalRef(const CounterRng& rng, uint64_t i, double deviation) {
  constexpr double kCut = 2.0, kDeviationOfCut = 0.87962566103423978;
  for (uint64_t tries = 0;; ++tries) {
    const double z = rng.Normal(i + (tries << 40));
    if (std::fabs(z) <= kCut) return deviation / kDeviationOfCut * z;
  }
}

}  // namespace fathom
