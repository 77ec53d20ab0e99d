#include "fathom/kernels/elementwise/value_checks.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "fathom/kernels/elementwise/value_checks_ref.h"
#include "fathom/testing/close.h"

namespace fathom {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

template <class T>
std::vector<T> AllCodes() {
  std::vector<T> codes;
  for (uint32_t i = 0; i < (1u << (8 * sizeof(T))); ++i) codes.push_back(T{static_cast<decltype(T::bits)>(i)});
  return codes;
}

template <class T>
void ExpectCountsAsReference(const std::vector<T>& x) {
  EXPECT_EQ(CountValues(ViewOf(x.data(), Shape{static_cast<int64_t>(x.size())})), CountValuesRef(std::span<const T>(x)));
}

TEST(ValueChecks, CountsEveryCode) {
  ExpectCountsAsReference(AllCodes<BF16>());
  ExpectCountsAsReference(AllCodes<F16>());
  ExpectCountsAsReference(AllCodes<F8E4M3>());
  ExpectCountsAsReference(AllCodes<F8E8M0>());
  ExpectCountsAsReference(std::vector<float>{1.0f, -0.0f, 0.1f, kInf, -2.5f, kNaN, -kInf, 1e-40f});
  ExpectCountsAsReference(std::vector<float>{});
}

TEST(ValueChecks, CountsAtAnyAddress) {
  std::vector<std::byte> bytes(9, std::byte{0});
  const float value = -1;
  std::memcpy(bytes.data() + 1, &value, sizeof(value));
  EXPECT_EQ(CountValues(ConstView(bytes.data() + 1, DType::kF32, {2})).negative, 1);
}

TEST(ValueChecks, FindsNaNCodes) {
  for (const int64_t n : {1, 15, 16, 17, 65535, 65536, 65537, 200000}) {
    std::vector<F8E4M3> codes(static_cast<size_t>(n), F8E4M3{0x7e});
    const ConstView view = ViewOf(const_cast<const F8E4M3*>(codes.data()), Shape{n});
    EXPECT_FALSE(HasNaNCode(view));
    for (const size_t at : {size_t{0}, codes.size() / 2, codes.size() - 1}) {
      for (const uint8_t nan : {0x7f, 0xff}) {
        codes[at].bits = nan;
        EXPECT_TRUE(HasNaNCode(view)) << n << " " << at;
        codes[at].bits = 0xfe;
      }
    }
  }
}

TEST(ValueChecks, ComparesAsReference) {
  for (const int64_t n : {0, 1, 7, 8, 9, 1000}) {
    auto a = ToFloats(RandomVector(n, 1)), b = ToFloats(RandomVector(n, 2));
    if (n >= 9) {
      a[3] = b[3] = kInf;
      a[4] = b[4] = kNaN;
      a[5] = kNaN;
      b[6] = -kInf;
    }
    const Difference got = CompareValues(a.data(), b.data(), n),
                     want = CompareValuesRef(std::span<const float>(a), std::span<const float>(b));
    EXPECT_NEAR(got.max_abs, want.max_abs, 1e-6);
    EXPECT_NEAR(got.dot, want.dot, 1e-9);
    EXPECT_NEAR(got.a_squares, want.a_squares, 1e-9);
    EXPECT_NEAR(got.b_squares, want.b_squares, 1e-9);
    EXPECT_EQ(got.non_finite, want.non_finite);
  }
}

TEST(ValueChecks, Cosine) {
  const std::vector<float> a = {3, 4}, b = {6, 8}, zero = {0, 0};
  EXPECT_DOUBLE_EQ(CompareValues(a.data(), b.data(), 2).Cosine(), 1);
  EXPECT_EQ(CompareValues(zero.data(), zero.data(), 2).Cosine(), 1);
  EXPECT_EQ(CompareValues(a.data(), zero.data(), 2).Cosine(), 0);
}

}  // namespace
}  // namespace fathom
