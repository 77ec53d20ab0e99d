// Comparisons for tests: NaN-safe, with the first bad element in the message.
#pragma once

#include <gtest/gtest.h>

#include <complex>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "fathom/base/rng.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

// Every |got - want| <= absolute + relative * |want|, and non-finite values stand at the same places with the same value.
testing::AssertionResult Close(std::span<const float> got, std::span<const double> want, double absolute, double relative);
testing::AssertionResult Close(std::span<const double> got, std::span<const double> want, double absolute, double relative);

// ||got - want||_2 <= bound * ||want||_2 (or <= bound where want is all zero), all finite.
testing::AssertionResult RelativeL2(std::span<const float> got, std::span<const double> want, double bound);
testing::AssertionResult RelativeL2(std::span<const double> got, std::span<const double> want, double bound);

// Same bits everywhere; the message names the first difference.
testing::AssertionResult SameBits(std::span<const float> a, std::span<const float> b);

// Normal values from a seed.
std::vector<double> RandomVector(int64_t n, uint64_t seed, double scale = 1.0);
Tensor RandomTensor(Shape shape, uint64_t seed);  // F32, of RandomVector's values
std::vector<float> ToFloats(std::span<const double> x);
std::vector<double> ToDoubles(std::span<const float> x);

// Derivative by complex step: f maps a complex vector to a complex vector and is right for complex arguments (branches on
// real parts only). Returns J^T cotangent, the gradient of sum(f(x) * cotangent), exact to rounding:
// d/dx_i = Im f(x + ih e_i) / h with h = 1e-50 (Squire and Trapp, 1998).
using ComplexFunction = std::function<std::vector<std::complex<double>>(const std::vector<std::complex<double>>&)>;
std::vector<double> ComplexStepGradient(const ComplexFunction& f, std::span<const double> x, std::span<const double> cotangent);

// Runs body once per SIMD target that this CPU has, with kernels pinned to it; the name is in every failure's trace.
// pin is fathom::PinSimdTarget and targets fathom::SimdTargets(); passed in because testing lies below kernels.
void ForEachTarget(const std::vector<std::string>& targets, const std::function<void(const std::string&)>& pin,
                   const std::function<void()>& body);

}  // namespace fathom
