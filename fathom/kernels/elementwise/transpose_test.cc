#include "fathom/kernels/elementwise/transpose.h"

#include "fathom/kernels/elementwise/transpose_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr int64_t kSizes[] = {1, 2, 3, 7, 8, 9, 16, 17, 63, 64, 65, 130};

// Bits count up, so that no two elements look alike.
template <class T>
std::vector<T> Counting(int64_t n) {
  std::vector<T> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(static_cast<T>(i * 2654435761));
  return x;
}

template <class T>
void Check(DType dtype, int64_t rows, int64_t columns, int64_t gap) {
  SCOPED_TRACE(testing::Message() << DTypeName(dtype) << " " << rows << " x " << columns << " gap " << gap);
  const T canary = static_cast<T>(0x5a5a5a5a5a5a5a5a);
  const std::vector<T> x = Counting<T>(rows * columns);
  std::vector<T> from(static_cast<size_t>(rows * (columns + gap)), canary), to(static_cast<size_t>(columns * (rows + gap)), canary),
      want = to;
  for (int64_t i = 0; i < rows; ++i) std::copy_n(x.begin() + i * columns, columns, from.begin() + i * (columns + gap));
  const std::vector<T> y = TransposeRef(x, rows, columns);
  for (int64_t j = 0; j < columns; ++j) std::copy_n(y.begin() + j * rows, rows, want.begin() + j * (rows + gap));
  Transpose(ConstView(reinterpret_cast<const std::byte*>(from.data()), dtype, {rows, columns}, columns + gap),
            View(reinterpret_cast<std::byte*>(to.data()), dtype, {columns, rows}, rows + gap));
  EXPECT_EQ(to, want);
}

TEST(Transpose, EqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t rows : kSizes) {
      for (const int64_t columns : kSizes) {
        Check<uint8_t>(DType::kF8E4M3, rows, columns, 0);
        Check<uint16_t>(DType::kBF16, rows, columns, 3);
        Check<uint32_t>(DType::kF32, rows, columns, 1);
        Check<uint64_t>(DType::kI64, rows, columns, 0);
      }
    }
  });
}

TEST(Transpose, ManyThreads) {
  SetThreads(4);
  Check<uint16_t>(DType::kBF16, 300, 517, 0);
  SetThreads(0);
}

}  // namespace
}  // namespace fathom
