// The obvious look-up.
#pragma once

#include <cstdint>
#include <vector>

namespace fathom {

template <class T>
std::vector<T> EmbeddingForwardRef(const std::vector<T>& table, int64_t d, const std::vector<int32_t>& ids) {
  std::vector<T> out;
  for (const int32_t id : ids) out.insert(out.end(), table.begin() + id * d, table.begin() + (id + 1) * d);
  return out;
}

template <class T>
void EmbeddingBackwardRef(const std::vector<T>& dout, int64_t d, const std::vector<int32_t>& ids, std::vector<T>& dtable) {
  for (size_t t = 0; t < ids.size(); ++t) {
    for (int64_t i = 0; i < d; ++i)
      dtable[static_cast<size_t>(ids[t] * d + i)] += dout[t * static_cast<size_t>(d) + static_cast<size_t>(i)];
  }
}

}  // namespace fathom
