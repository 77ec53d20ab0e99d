// What tests of matrix products start from: exact integers, weights of every dtype.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "fathom/testing/kernel_check.h"

namespace fathom {

// Small integers, so that every sum is exact in f32 (and every value in BF16) and results can be compared bit by bit.
inline std::vector<double> Integers(int64_t n, uint64_t seed) {
  const CounterRng rng(seed, 1);
  std::vector<double> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(static_cast<double>(rng.Below(static_cast<uint64_t>(i), 7)) - 3);
  return out;
}

// A weight of any dtype with guarded padding; FP8 comes with scales, F32 or E8M0.
class TestWeight {
 public:
  TestWeight(DType type, int64_t rows, int64_t columns, bool e8m0_scales = false, uint64_t seed = 7) : rows_(rows), columns_(columns) {
    const auto values = Integers(rows * columns, seed);
    if (type == DType::kF32) f32_ = std::make_unique<PaddedMatrix<float>>(rows, columns, 3, 1, values);
    if (type == DType::kBF16) bf16_ = std::make_unique<PaddedMatrix<BF16>>(rows, columns, 3, 1, values);
    if (type == DType::kF16) f16_ = std::make_unique<PaddedMatrix<F16>>(rows, columns, 3, 1, values);
    if (type == DType::kF8E4M3) Quantise(values, e8m0_scales);
  }
  WeightView view() {
    if (f32_) return {f32_->view(), {}};
    if (bf16_) return {bf16_->view(), {}};
    if (f16_) return {f16_->view(), {}};
    const Shape blocks{(rows_ + 127) / 128, (columns_ + 127) / 128};
    return {ViewOf(codes_.data() + kShift, Shape{rows_, columns_}),
            f32_scales_.empty() ? ConstView(ViewOf(e8m0_scales_.data(), blocks)) : ConstView(ViewOf(f32_scales_.data(), blocks))};
  }
  std::vector<double> Values() {
    if (f32_) return f32_->Values();
    if (bf16_) return bf16_->Values();
    if (f16_) return f16_->Values();
    std::vector<double> out;
    for (int64_t i = 0; i < rows_ * columns_; ++i) out.push_back(ToFloat(codes_[static_cast<size_t>(i + kShift)]) * Scale(i));
    return out;
  }

 private:
  static constexpr int64_t kShift = 3;
  // Powers of two that differ from block to block.
  static int Exponent(int64_t block) { return static_cast<int>(block % 3) - 1; }
  int64_t Block(int64_t i) const { return i / columns_ / 128 * ((columns_ + 127) / 128) + i % columns_ / 128; }
  double Scale(int64_t i) const { return std::ldexp(1.0, Exponent(Block(i))); }
  void Quantise(const std::vector<double>& values, bool e8m0_scales) {
    codes_.assign(static_cast<size_t>(kShift), F8E4M3{0x7f});
    for (const double v : values) codes_.push_back(ToF8E4M3(static_cast<float>(v)));
    const int64_t blocks = (rows_ + 127) / 128 * ((columns_ + 127) / 128);
    for (int64_t b = 0; b < blocks; ++b) {
      if (e8m0_scales) {
        e8m0_scales_.push_back({static_cast<uint8_t>(127 + Exponent(b))});
      } else {
        f32_scales_.push_back(std::ldexp(1.0f, Exponent(b)));
      }
    }
  }
  int64_t rows_, columns_;
  std::unique_ptr<PaddedMatrix<float>> f32_;
  std::unique_ptr<PaddedMatrix<BF16>> bf16_;
  std::unique_ptr<PaddedMatrix<F16>> f16_;
  std::vector<F8E4M3> codes_;
  std::vector<float> f32_scales_;
  std::vector<F8E8M0> e8m0_scales_;
};

// What the result must be: exact sums, rounded once to Y.
template <class Y>
std::vector<float> Rounded(const std::vector<double>& c) {
  std::vector<float> out;
  for (const double v : c) out.push_back(ToFloat(FromFloat<Y>(static_cast<float>(v))));
  return out;
}

}  // namespace fathom
