// Neighbouring queries of one document and the keys that any of them has chosen: what they share is loaded, and multiplied, once.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/kernels/attention/choice.h"
#include "fathom/tensor/arena.h"

namespace fathom {

inline constexpr int64_t kMostSharedQueries = 512;

// Queries [begin, end), at most kMostSharedQueries of them.
struct SharedKeys {
  int64_t begin, end;
  std::span<int32_t> rows;    // rising
  std::span<uint64_t> masks;  // [rows][Words()]: bit i of word w: query begin + 64 w + i has chosen the row

  int64_t Words() const { return (end - begin + 63) / 64; }
  int64_t count() const { return std::ssize(rows); }
  int64_t Row(int64_t i) const { return rows[static_cast<size_t>(i)]; }
};

// Room for up to `most` rows. Under a counting arena it has no memory behind it.
SharedKeys AllocSharedKeys(Arena& arena, int64_t begin, int64_t end, int64_t most);

// Overwrites rows and masks of every block and shrinks both to what its queries have chosen; where that is more than there is room for, to
// nothing. No document has more than `most` keys. Same result for any number of threads.
void UniteKeys(const Choice& choice, int64_t most, std::span<SharedKeys> blocks, Arena& scratch);

}  // namespace fathom
