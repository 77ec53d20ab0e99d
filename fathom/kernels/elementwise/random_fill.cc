#include "fathom/kernels/elementwise/random_fill.h"

#include "fathom/base/threads.h"
#include "fathom/kernels/elementwise/random_fill_ref.h"

namespace fathom {
namespace {

constexpr int64_t kGrain = 1 << 14;

template <class F>
void FillWith(View x, const F& value) {
  FATHOM_CHECK(x.contiguous(), "strided view");
  ParallelRanges(x.NumElements(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float v = static_cast<float>(value(static_cast<uint64_t>(i)));
      if (x.dtype() == DType::kF32) {
        x.data<float>()[i] = v;
      } else {
        x.data<BF16>()[i] = ToBF16(v);
      }
    }
  });
}

}  // namespace

void FillNormal(uint64_t seed, uint64_t stream, double deviation, View x) {
  const CounterRng rng(seed, stream);
  FillWith(x, [&](uint64_t i) { return deviation * rng.Normal(i); });
}

void FillTruncatedNormal(uint64_t seed, uint64_t stream, double deviation, View x) {
  const CounterRng rng(seed, stream);
  FillWith(x, [&](uint64_t i) { return TruncatedNormalRef(rng, i, deviation); });
}

}  // namespace fathom
