#include "fathom/kernels/elementwise/topk.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/elementwise/topk.cc"
#include <hwy/foreach_target.h>

#include <limits>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

using VU = hn::Vec<DU>;

// Unsigned order of the keys is the order of the scores; NaN as -inf, -0 as +0.
HWY_INLINE VU Keys(VF x) {
  const DF d;
  const DU du;
  const DI di;
  x = hn::Add(hn::IfThenElse(hn::IsNaN(x), hn::Set(d, -std::numeric_limits<float>::infinity()), x), hn::Zero(d));
  const auto sign = hn::BitCast(du, hn::ShiftRight<31>(hn::BitCast(di, x)));  // all ones if negative
  return hn::Xor(hn::BitCast(du, x), hn::Or(sign, hn::Set(du, 0x80000000u)));
}

// keys[i] of every score.
void StoreKeys(const float* scores, int64_t n, uint32_t* keys) {
  const int64_t lanes = LanesF();
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(Keys(LoadF(scores + i)), DU(), keys + i);
  if (i == n) return;
  alignas(64) uint32_t rest[kMaxLanes];
  hn::Store(Keys(LoadN(scores + i, n - i)), DU(), rest);
  std::memcpy(keys + i, rest, static_cast<size_t>(n - i) * sizeof(uint32_t));
}

// Keeps, in order, the keys whose bits from `shift` upwards equal prefix; returns their number. In place.
int64_t KeepPrefix(uint32_t* keys, int64_t n, int shift, uint32_t prefix) {
  const DU du;
  const int64_t lanes = LanesF();
  const auto wanted = hn::Set(du, prefix);
  int64_t kept = 0, i = 0;
  for (; i + lanes <= n; i += lanes) {
    const VU key = hn::LoadU(du, keys + i);
    const auto equal = hn::Eq(hn::ShiftRightSame(key, shift), wanted);
    if (hn::AllFalse(du, equal)) continue;
    hn::StoreU(hn::Compress(key, equal), du, keys + kept);  // kept <= i: what lies behind has been read
    kept += static_cast<int64_t>(hn::CountTrue(du, equal));
  }
  for (; i < n; ++i) {
    if (keys[i] >> shift == prefix) keys[kept++] = keys[i];
  }
  return kept;
}

// Indices, rising, of the keys above `threshold` and of the first `ties` equal to it; there are exactly k.
void CollectAbove(const float* scores, int64_t n, uint32_t threshold, int64_t ties, int64_t k, int32_t* ids) {
  const DU du;
  const DI di;
  const int64_t lanes = LanesF();
  const auto limit = hn::Set(du, threshold);
  alignas(64) uint32_t keys[kMaxLanes];
  int64_t found = 0;
  for (int64_t i = 0; i < n && found < k; i += lanes) {
    const int64_t count = i + lanes <= n ? lanes : n - i;
    const VU key = Keys(count == lanes ? LoadF(scores + i) : LoadN(scores + i, count));
    const auto above = hn::Gt(key, limit);
    if (count == lanes && found + lanes <= k && (ties == 0 || hn::AllFalse(du, hn::Eq(key, limit)))) {
      if (hn::AllFalse(du, above)) continue;
      hn::StoreU(hn::Compress(hn::Iota(di, static_cast<int32_t>(i)), hn::RebindMask(di, above)), di, ids + found);
      found += static_cast<int64_t>(hn::CountTrue(du, above));
      continue;
    }
    hn::Store(key, du, keys);
    for (int64_t j = 0; j < count && found < k; ++j) {
      if (keys[j] == threshold ? ties-- > 0 : keys[j] > threshold) ids[found++] = static_cast<int32_t>(i + j);
    }
  }
}

// The k-th largest key, k <= n, by three digits of a radix search; above: how many are larger.
uint32_t KthKey(uint32_t* keys, int64_t n, int64_t k, int64_t& above) {
  constexpr int kBits[] = {11, 11, 10};
  int shift = 32;
  above = 0;
  uint32_t prefix = 0;
  for (const int bits : kBits) {
    shift -= bits;
    const uint32_t mask = (1u << bits) - 1;
    uint32_t count[2048] = {};
    for (int64_t i = 0; i < n; ++i) ++count[(keys[i] >> shift) & mask];
    uint32_t digit = mask;
    for (; above + count[digit] < k; --digit) above += count[digit];
    prefix = (prefix << bits) | digit;
    n = KeepPrefix(keys, n, shift, prefix);
  }
  return prefix;
}

void LargestByIndex(const float* scores, int64_t n, int64_t k, int32_t* ids, int32_t* work) {
  uint32_t* keys = reinterpret_cast<uint32_t*>(work);
  StoreKeys(scores, n, keys);
  int64_t above;
  const uint32_t threshold = KthKey(keys, n, k, above);
  CollectAbove(scores, n, threshold, k - above, k, ids);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cmath>
#include <numeric>

namespace fathom {
HWY_EXPORT(LargestByIndex);

void TopKSorted(std::span<const float> scores, int64_t k, std::span<int32_t> ids, std::span<int32_t> work) {
  FATHOM_CHECK(k >= 0 && std::ssize(ids) == k && work.size() >= scores.size(), "{} ids, work of {} for {} scores", ids.size(), work.size(),
               scores.size());
  const int64_t n = std::ssize(scores), count = std::min(k, n);
  if (count == n) {
    std::iota(ids.begin(), ids.begin() + count, 0);
  } else if (count > 0) {
    HWY_DYNAMIC_DISPATCH(LargestByIndex)(scores.data(), n, count, ids.data(), work.data());
  }
  std::fill(ids.begin() + count, ids.end(), -1);
}

void TopK(std::span<const float> scores, int64_t k, std::span<int32_t> ids, std::span<int32_t> work) {
  TopKSorted(scores, k, ids, work);
  const auto value = [&](int32_t i) {
    const float v = scores[static_cast<size_t>(i)];
    return std::isnan(v) ? -std::numeric_limits<float>::infinity() : v;
  };
  std::sort(ids.begin(), ids.begin() + std::min(k, std::ssize(scores)), [&](int32_t a, int32_t b) {
    const float x = value(a), y = value(b);
    return x > y || (x == y && a < b);
  });
}

}  // namespace fathom
#endif  // HWY_ONCE
