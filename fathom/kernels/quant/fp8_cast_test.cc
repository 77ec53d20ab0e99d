#include "fathom/kernels/quant/fp8_cast.h"

#include "fathom/kernels/quant/fp8_cast_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr float kScales[] = {1.0f, 3.1e-4f, 0x1p-9f, 1e-40f, 1e-45f, 3e38f, 1.7e-38f, 0.1f};
constexpr int64_t kWidths[] = {1, 15, 16, 17, 127, 128, 129, 300};

std::vector<F8E4M3> EveryCode(int64_t n) {
  std::vector<F8E4M3> codes;
  for (int64_t i = 0; i < n; ++i) codes.push_back(F8E4M3{static_cast<uint8_t>(i * 37)});
  return codes;
}

int64_t Blocks(int64_t n) { return (n + kScaleBlock - 1) / kScaleBlock; }

template <class T>
bool SameValue(T a, T b) {
  return std::isnan(ToFloat(a)) ? std::isnan(ToFloat(b)) : std::memcmp(&a, &b, sizeof(T)) == 0;
}

template <class T>
void CheckDequantize(int64_t rows, int64_t k, int64_t first_row) {
  SCOPED_TRACE(testing::Message() << rows << " x " << k << " from row " << first_row);
  const std::vector<F8E4M3> codes = EveryCode(rows * k);
  std::vector<float> scale;
  for (int64_t i = 0; i < Blocks(first_row + rows) * Blocks(k); ++i) scale.push_back(kScales[i % std::ssize(kScales)]);
  std::vector<T> got(codes.size());
  DequantizeFp8(ViewOf(codes.data(), {rows, k}), ViewOf(scale.data(), {Blocks(first_row + rows), Blocks(k)}), first_row,
                ViewOf(got.data(), {rows, k}));
  const std::vector<T> want = DequantizeFp8Ref<T>(codes, scale, rows, k, first_row);
  for (size_t i = 0; i < want.size(); ++i) ASSERT_TRUE(SameValue(got[i], want[i])) << i << " code " << int{codes[i].bits};
}

TEST(Fp8Cast, DequantizeEqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t k : kWidths) {
      CheckDequantize<BF16>(3, k, 0);
      CheckDequantize<BF16>(5, k, 126);
      CheckDequantize<float>(300, k, 0);
    }
  });
}

TEST(Fp8Cast, E8M0Scales) {
  const std::vector<F8E4M3> codes = EveryCode(256);
  for (const int bits : {0, 1, 100, 127, 254}) {
    const std::vector<F8E8M0> scale(2, F8E8M0{static_cast<uint8_t>(bits)});
    std::vector<BF16> got(256);
    DequantizeFp8(ViewOf(codes.data(), {1, 256}), ViewOf(scale.data(), {1, 2}), 0, ViewOf(got.data(), {1, 256}));
    const auto want = DequantizeFp8Ref<BF16>(codes, std::vector<float>(2, ToFloat(scale[0])), 1, 256, 0);
    for (size_t i = 0; i < want.size(); ++i) ASSERT_TRUE(SameValue(got[i], want[i])) << bits << " " << i;
  }
}

struct Quantized {
  std::vector<F8E4M3> codes;
  std::vector<float> scale;
  int64_t differ;
};

template <class T>
Quantized Quantize(const std::vector<T>& x, int64_t rows, int64_t k, ScaleFormat format) {
  Quantized q = {std::vector<F8E4M3>(x.size()), std::vector<float>(static_cast<size_t>(Blocks(rows) * Blocks(k))), 0};
  q.differ = QuantizeFp8(ViewOf(x.data(), {rows, k}), format, ViewOf(q.codes.data(), {rows, k}),
                         ViewOf(q.scale.data(), {Blocks(rows), Blocks(k)}));
  return q;
}

TEST(Fp8Cast, QuantizeEqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t k : kWidths) {
      for (const bool ue8m0 : {false, true}) {
        const int64_t rows = 130;
        std::vector<float> x;
        for (const double v : RandomVector(rows * k, static_cast<uint64_t>(k), 0.02)) x.push_back(static_cast<float>(v));
        x[0] = -0.0f;
        std::vector<F8E4M3> codes;
        std::vector<float> scale;
        QuantizeFp8Ref(x, rows, k, ue8m0, codes, scale);
        const Quantized got = Quantize(x, rows, k, ue8m0 ? ScaleFormat::kUe8m0 : ScaleFormat::kF32);
        EXPECT_TRUE(SameBits(got.scale, scale)) << k;
        EXPECT_EQ(got.codes, codes) << k;
      }
    }
  });
}

TEST(Fp8Cast, ZeroBlocksAndExtremes) {
  const Quantized zero = Quantize(std::vector<float>(300, 0.0f), 1, 300, ScaleFormat::kF32);
  for (const float s : zero.scale) EXPECT_EQ(s, 1.0f);
  EXPECT_EQ(zero.differ, 0);
  const Quantized tiny = Quantize(std::vector<float>{1e-42f, -3e-45f}, 1, 2, ScaleFormat::kF32);
  EXPECT_TRUE(tiny.scale[0] > 0);
  const Quantized large = Quantize(std::vector<float>{3e38f, 1.0f}, 1, 2, ScaleFormat::kUe8m0);
  EXPECT_TRUE(std::isfinite(large.scale[0]));
}

// Codes under a scale, through BF16, and back.
void CheckRoundTrip(const std::vector<F8E4M3>& codes, int64_t rows, int64_t k, float scale, ScaleFormat format, bool same_scale) {
  const auto image = DequantizeFp8Ref<BF16>(codes, std::vector<float>(static_cast<size_t>(Blocks(rows) * Blocks(k)), scale), rows, k, 0);
  const Quantized back = Quantize(image, rows, k, format);
  EXPECT_EQ(back.differ, 0);
  EXPECT_EQ(back.codes, codes);
  for (const float s : back.scale) {
    EXPECT_NEAR(s / scale, 1.0, 0x1p-8);
    if (same_scale) {
      EXPECT_EQ(s, scale);
    }
  }
  EXPECT_EQ(DequantizeFp8Ref<BF16>(back.codes, back.scale, rows, k, 0), image);
}

std::vector<F8E4M3> CodesUpTo(int largest, int64_t n) {
  std::vector<F8E4M3> codes;
  for (int64_t i = 0; i < n; ++i) codes.push_back(F8E4M3{static_cast<uint8_t>((i * 29 % (largest + 1)) | (i % 2 ? 0x80 : 0))});
  codes[static_cast<size_t>(n / 2)].bits = static_cast<uint8_t>(largest);
  return codes;
}

TEST(Fp8Cast, RoundTripKeepsBytes) {
  const int64_t rows = 128, k = 128;
  for (const float scale : {3.1e-4f, 0.0123f, 1.7e-3f, 5.5f}) {
    CheckRoundTrip(CodesUpTo(0x7e, rows * k), rows, k, scale, ScaleFormat::kF32, false);
    CheckRoundTrip(CodesUpTo(0x7c, rows * k), rows, k, scale, ScaleFormat::kF32, false);  // 384: a block that was scaled loosely
  }
  for (const float scale : {0x1p-12f, 0x1p-3f, 0x1.8p-10f})
    CheckRoundTrip(CodesUpTo(0x7e, rows * k), rows, k, scale, ScaleFormat::kF32, true);
  for (const float scale : {0x1p-12f, 0x1p3f}) CheckRoundTrip(CodesUpTo(0x7e, rows * k), rows, k, scale, ScaleFormat::kUe8m0, true);
}

// The scale of weights that were BF16 before the hub's recipe made them FP8.
TEST(Fp8Cast, RoundTripKeepsRecipeScales) {
  for (int i = 0; i < 20; ++i) {
    const float amax = RoundToBF16(0.01f + 0.0137f * static_cast<float>(i));
    CheckRoundTrip(CodesUpTo(0x7e, 128 * 128), 128, 128, amax / 448.0f, ScaleFormat::kF32, true);
  }
}

TEST(Fp8Cast, CountsWhatIsLost) {
  std::vector<BF16> x(256, ToBF16(1.0f));
  x[3] = ToBF16(1.0078125f);  // 0.25 / 448 off any code next to 1
  const Quantized q = Quantize(x, 1, 256, ScaleFormat::kF32);
  EXPECT_GT(q.differ, 0);
  EXPECT_LT(q.differ, 129);  // the second block is exact
}

TEST(Fp8Cast, BitsDoNotDependOnThreads) {
  ExpectSameForAnyThreads([] {
    std::vector<float> x = ToFloats(RandomVector(700 * 200, 4));
    const Quantized q = Quantize(x, 700, 200, ScaleFormat::kF32);
    std::vector<float> out(x.size());
    DequantizeFp8(ViewOf(q.codes.data(), {700, 200}), ViewOf(q.scale.data(), {6, 2}), 0, ViewOf(out.data(), {700, 200}));
    return out;
  });
}

}  // namespace
}  // namespace fathom
