// The reference of mla_chosen is mla_attention's over other lists of keys.
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/kernels/attention/choice.h"
#include "fathom/kernels/attention/mla_attention_ref.h"

namespace fathom::ref {

// The keys that each query has chosen, one list per query.
inline std::vector<std::vector<int32_t>> ChosenKeys(const Choice& choice) {
  std::vector<std::vector<int32_t>> keys;
  for (int64_t t = 0; t < std::ssize(choice.chosen) / choice.k; ++t) {
    const auto list = choice.Of(t);
    keys.emplace_back(list.begin(), list.end());
  }
  return keys;
}

}  // namespace fathom::ref
