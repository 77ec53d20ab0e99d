#include "fathom/testing/close.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fathom {
namespace {

bool SameNonFinite(double a, double b) { return (std::isnan(a) && std::isnan(b)) || a == b; }

template <class T>
testing::AssertionResult CloseImpl(std::span<const T> got, std::span<const double> want, double absolute, double relative) {
  if (got.size() != want.size()) return testing::AssertionFailure() << got.size() << " values, expected " << want.size();
  for (size_t i = 0; i < got.size(); ++i) {
    const double g = static_cast<double>(got[i]), w = want[i];
    const bool good = std::isfinite(w) ? std::fabs(g - w) <= absolute + relative * std::fabs(w) : SameNonFinite(g, w);
    if (!good)
      return testing::AssertionFailure() << "at " << i << " of " << got.size() << ": " << g << ", expected " << w << ", difference "
                                         << g - w;
  }
  return testing::AssertionSuccess();
}

template <class T>
testing::AssertionResult RelativeL2Impl(std::span<const T> got, std::span<const double> want, double bound) {
  if (got.size() != want.size()) return testing::AssertionFailure() << got.size() << " values, expected " << want.size();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += (static_cast<double>(got[i]) - want[i]) * (static_cast<double>(got[i]) - want[i]);
    norm += want[i] * want[i];
  }
  const double error = norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
  if (!(error <= bound)) return testing::AssertionFailure() << "relative L2 error " << error << ", at most " << bound;
  return testing::AssertionSuccess();
}

}  // namespace

testing::AssertionResult Close(std::span<const float> got, std::span<const double> want, double absolute, double relative) {
  return CloseImpl(got, want, absolute, relative);
}
testing::AssertionResult Close(std::span<const double> got, std::span<const double> want, double absolute, double relative) {
  return CloseImpl(got, want, absolute, relative);
}
testing::AssertionResult RelativeL2(std::span<const float> got, std::span<const double> want, double bound) {
  return RelativeL2Impl(got, want, bound);
}
testing::AssertionResult RelativeL2(std::span<const double> got, std::span<const double> want, double bound) {
  return RelativeL2Impl(got, want, bound);
}

testing::AssertionResult SameBits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return testing::AssertionFailure() << a.size() << " values against " << b.size();
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0)
      return testing::AssertionFailure() << "at " << i << ": " << a[i] << " against " << b[i];
  }
  return testing::AssertionSuccess();
}

std::vector<double> RandomVector(int64_t n, uint64_t seed, double scale) {
  const CounterRng rng(seed, HashName("test"));
  std::vector<double> x(static_cast<size_t>(n));
  // Rounded to float, so that the reference in double and the kernel in float start from the same numbers.
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(scale * rng.Normal(i));
  return x;
}

Tensor RandomTensor(Shape shape, uint64_t seed) {
  Tensor t(DType::kF32, shape);
  std::ranges::copy(ToFloats(RandomVector(t.NumElements(), seed)), t.mutable_data<float>());
  return t;
}

std::vector<float> ToFloats(std::span<const double> x) { return std::vector<float>(x.begin(), x.end()); }
std::vector<double> ToDoubles(std::span<const float> x) { return std::vector<double>(x.begin(), x.end()); }

std::vector<double> ComplexStepGradient(const ComplexFunction& f, std::span<const double> x, std::span<const double> cotangent) {
  constexpr double kStep = 1e-50;
  std::vector<std::complex<double>> z(x.begin(), x.end());
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    z[i] = {x[i], kStep};
    const auto y = f(z);
    z[i] = x[i];
    EXPECT_EQ(y.size(), cotangent.size());
    double sum = 0;
    for (size_t j = 0; j < y.size(); ++j) sum += y[j].imag() / kStep * cotangent[j];
    gradient[i] = sum;
  }
  return gradient;
}

void ForEachTarget(const std::vector<std::string>& targets, const std::function<void(const std::string&)>& pin,
                   const std::function<void()>& body) {
  for (const std::string& target : targets) {
    SCOPED_TRACE("SIMD target " + target);
    pin(target);
    body();
  }
  pin("");
}

}  // namespace fathom
