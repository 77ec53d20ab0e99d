// The obvious passes.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace fathom {

template <class T>
std::vector<T> AddScaledRef(double scale, const std::vector<T>& x, std::vector<T> y) {
  for (size_t i = 0; i < y.size(); ++i) y[i] += scale * x[i];
  return y;
}

template <class T>
T SumRef(const std::vector<T>& x) {
  T sum = 0;
  for (const T& v : x) sum += v;
  return sum;
}

template <class T>
T SumSquaresRef(const std::vector<T>& x) {
  T sum = 0;
  for (const T& v : x) sum += v * v;
  return sum;
}

template <class T>
std::vector<T> RowDotsRef(const std::vector<T>& x, const std::vector<T>& y, size_t rows) {
  std::vector<T> out(rows);
  for (size_t i = 0; i < x.size(); ++i) out[i / (x.size() / rows)] += x[i] * y[i];
  return out;
}

}  // namespace fathom
