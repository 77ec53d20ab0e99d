// The reference of sparse_attention: mla_attention_ref.h over the chosen keys.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fathom/kernels/mla_attention_ref.h"
#include "fathom/kernels/sparse_attention.h"

namespace fathom::ref {

// The keys of each query, from [T*k] rows ended by negative entries: what MlaForward and MlaBackward take.
inline std::vector<std::vector<int32_t>> ChosenKeys(std::span<const int32_t> chosen, int64_t k) {
  std::vector<std::vector<int32_t>> keys;
  for (size_t begin = 0; begin < chosen.size(); begin += static_cast<size_t>(k)) {
    keys.emplace_back();
    for (const int32_t row : chosen.subspan(begin, static_cast<size_t>(k))) {
      if (row >= 0) keys.back().push_back(row);
    }
  }
  return keys;
}

}  // namespace fathom::ref
