#pragma once

#include <cstdint>
#include <vector>

namespace fathom {

template <class T>
std::vector<T> TransposeRef(const std::vector<T>& x, int64_t rows, int64_t columns) {
  std::vector<T> y(x.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) y[static_cast<size_t>(j * rows + i)] = x[static_cast<size_t>(i * columns + j)];
  }
  return y;
}

}  // namespace fathom
