#include "fathom/kernels/quant/hadamard.h"

#include "fathom/kernels/quant/hadamard_ref.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

TEST(Hadamard, EqualsReference) {
  for (const int64_t d : {1, 2, 8, 64, 128}) {
    for (const int64_t gap : {0, 3}) {
      PaddedMatrix<float> x(67, d, gap, 1, RandomVector(67 * d, 1));
      const auto want = HadamardRotateRef(x.Values(), static_cast<size_t>(d));
      HadamardRotate(x.view());
      EXPECT_TRUE(Close(x.Floats(), want, 1e-6, 1e-6)) << d;
      EXPECT_TRUE(x.PaddingUntouched());
    }
  }
}

TEST(Hadamard, IsItsOwnInverse) {
  const auto values = RandomVector(5 * 32, 2);
  PaddedMatrix<float> x(5, 32, 0, 0, values);
  HadamardRotate(x.view());
  HadamardRotate(x.view());
  EXPECT_TRUE(Close(x.Floats(), values, 1e-6, 1e-6));
}

}  // namespace
}  // namespace fathom
