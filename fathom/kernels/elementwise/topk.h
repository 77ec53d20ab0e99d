// The k largest of a row, exactly; equal values go to the lower index.
#pragma once

#include <cstdint>
#include <span>

namespace fathom {

// scores [n]. Overwrites ids [k] with the indices of the min(k, n) largest by falling score (NaN counts as -inf); the rest with -1.
// work: scratch of at least n entries.
void TopK(std::span<const float> scores, int64_t k, std::span<int32_t> ids, std::span<int32_t> work);

// The same set in rising order of index: what a gather wants.
void TopKSorted(std::span<const float> scores, int64_t k, std::span<int32_t> ids, std::span<int32_t> work);

}  // namespace fathom
