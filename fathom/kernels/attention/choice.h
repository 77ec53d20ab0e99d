// The lists of keys that IndexerTopK leaves.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace fathom {

// Rows that each query chose: rising, ended by a negative entry or by k.
struct Choice {
  std::span<const int32_t> chosen;
  int64_t k;
  std::span<const int32_t> Of(int64_t query) const {
    const std::span<const int32_t> all = chosen.subspan(static_cast<size_t>(query * k), static_cast<size_t>(k));
    return {all.begin(), std::partition_point(all.begin(), all.end(), [](int32_t row) { return row >= 0; })};
  }
};

}  // namespace fathom
