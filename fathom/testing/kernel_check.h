// What every kernel test needs: sizes, matrices with guarded padding, one result for any number of threads.
//
// Matrices have rows apart from each other, at any offset from alignment, with NaN between and around them that a kernel
// must neither read into a result nor overwrite.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <vector>

#include "fathom/base/threads.h"
#include "fathom/base/types.h"
#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"
#include "fathom/testing/close.h"

namespace fathom {

// Row lengths around every vector length, then the models'.
inline constexpr int64_t kRowSizes[] = {1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 128, 512, 576, 1536, 2048, 7168};

// Scratch whose first bytes, as many as any test's kernel takes, are ones: a NaN in every type. What a kernel reads of it without having
// written it shows.
inline Arena DirtyArena(int64_t bytes) {
  Arena arena(bytes);
  const ArenaScope scope(arena);
  const int64_t dirty = std::min<int64_t>(bytes, 16 << 20) / 64 * 64;
  std::memset(arena.AllocBytes(dirty), 0xff, static_cast<size_t>(dirty));
  return arena;
}

// A NaN with a payload of its own, so that a copied or computed NaN can't pass for it.
template <class T>
T Canary() {
  if constexpr (sizeof(T) == 2) {
    return std::bit_cast<T>(uint16_t{0x7fd7});
  } else {
    return std::bit_cast<T>(uint32_t{0x7fc0dead});
  }
}

// [rows, columns] of T (float, BF16 or F16); `gap` elements between rows, `shift` elements before the first.
template <class T>
class PaddedMatrix {
 public:
  PaddedMatrix(int64_t rows, int64_t columns, int64_t gap = 0, int64_t shift = 0)
      : rows_(rows),
        columns_(columns),
        stride_(columns + gap),
        first_(kMargin + shift),
        data_(static_cast<size_t>(first_ + rows * stride_ + kMargin), Canary<T>()) {}
  PaddedMatrix(int64_t rows, int64_t columns, int64_t gap, int64_t shift, std::span<const double> values)
      : PaddedMatrix(rows, columns, gap, shift) {
    Set(values);
  }

  void Set(std::span<const double> values) {
    for (int64_t i = 0; i < rows_ * columns_; ++i) At(i) = FromFloat<T>(static_cast<float>(values[static_cast<size_t>(i)]));
  }
  View view() { return ViewOf(data_.data() + first_, Shape{rows_, columns_}, stride_); }
  std::vector<float> Floats() const {
    std::vector<float> out;
    for (int64_t i = 0; i < rows_ * columns_; ++i) out.push_back(ToFloat(const_cast<PaddedMatrix*>(this)->At(i)));
    return out;
  }
  // What a kernel really starts from: the values after rounding to T.
  std::vector<double> Values() const {
    const std::vector<float> f = Floats();
    return std::vector<double>(f.begin(), f.end());
  }
  // Everything outside the matrix is as it was.
  testing::AssertionResult PaddingUntouched() const {
    const T canary = Canary<T>();
    for (int64_t i = 0; i < std::ssize(data_); ++i) {
      const int64_t row = i < first_ ? rows_ : (i - first_) / stride_, column = i < first_ ? 0 : (i - first_) % stride_;
      if (row < rows_ && column < columns_) continue;
      if (std::memcmp(&data_[static_cast<size_t>(i)], &canary, sizeof(T)) != 0)
        return testing::AssertionFailure() << "padding overwritten at " << i - first_;
    }
    return testing::AssertionSuccess();
  }

 private:
  static constexpr int64_t kMargin = 32;
  T& At(int64_t i) { return data_[static_cast<size_t>(first_ + i / columns_ * stride_ + i % columns_)]; }
  int64_t rows_, columns_, stride_, first_;
  std::vector<T> data_;
};

// run() gives the same bits on 1, 2 and 4 threads.
// More than there are cores, and than any small shape has jobs: work is cut finer then.
inline constexpr int kManyThreads = 48;
inline void ExpectSameForAnyThreads(const std::function<std::vector<float>()>& run) {
  SetThreads(1);
  const std::vector<float> one = run();
  for (const int threads : {2, 4, kManyThreads}) {
    SetThreads(threads);
    EXPECT_TRUE(SameBits(run(), one)) << threads << " threads";
  }
  SetThreads(0);
}

}  // namespace fathom
