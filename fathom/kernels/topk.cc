#include "fathom/kernels/topk.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// Unsigned order of the keys is the order of the scores; NaN as -inf, -0 as +0.
uint32_t Key(float score) {
  if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

}  // namespace

void TopKSorted(std::span<const float> scores, int64_t k, std::span<int32_t> ids, std::span<int32_t> work) {
  TopK(scores, k, ids, work);
  std::sort(ids.begin(), ids.begin() + std::min<int64_t>(k, std::ssize(scores)));
}

void TopK(std::span<const float> scores, int64_t k, std::span<int32_t> ids, std::span<int32_t> work) {
  FATHOM_CHECK(std::ssize(ids) == k && work.size() >= scores.size(), "{} ids, work of {} for {} scores", ids.size(), work.size(), scores.size());
  const size_t n = scores.size(), count = std::min(static_cast<size_t>(k), n);
  for (size_t i = 0; i < n; ++i) work[i] = static_cast<int32_t>(i);
  const auto before = [&](int32_t a, int32_t b) {
    const uint32_t x = Key(scores[static_cast<size_t>(a)]), y = Key(scores[static_cast<size_t>(b)]);
    return x > y || (x == y && a < b);
  };
  if (count < n) std::nth_element(work.begin(), work.begin() + static_cast<int64_t>(count), work.begin() + static_cast<int64_t>(n), before);
  std::sort(work.begin(), work.begin() + static_cast<int64_t>(count), before);
  std::copy(work.begin(), work.begin() + static_cast<int64_t>(count), ids.begin());
  std::fill(ids.begin() + static_cast<int64_t>(count), ids.end(), -1);
}

}  // namespace fathom
