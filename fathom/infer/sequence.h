// What one sequence needs between passes.
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/layers/cache.h"

namespace fathom {

struct Sequence {
  explicit Sequence(CachePool& pool) : cache(pool) {}
  // The first `length` tokens of another one, in the same blocks; what waits for a drafting module is not taken along.
  Sequence(const Sequence& from, int64_t length) : cache(from.cache.Fork(length)), ids(from.ids.begin(), from.ids.begin() + length) {}
  int64_t length() const { return cache.length(); }

  CachedSequence cache;
  std::vector<int32_t> ids;  // the tokens in the cache

  // Drafting only: the main model's states [Waiting(),D] at the last positions, which have not entered the module's layer yet.
  std::vector<float> waiting;
  int64_t Waiting(int64_t hidden) const { return std::ssize(waiting) / hidden; }
};

// A token that follows a sequence and is not in it.
struct NextToken {
  Sequence* sequence;
  int32_t id;
};

}  // namespace fathom
