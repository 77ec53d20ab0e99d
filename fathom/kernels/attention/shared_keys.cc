#include "fathom/kernels/attention/shared_keys.h"

#include <algorithm>
#include <limits>

#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {

// First and last row that any of the block's queries has chosen.
std::pair<int64_t, int64_t> RowRange(const Choice& choice, const SharedKeys& block) {
  int64_t first = std::numeric_limits<int64_t>::max(), end = 0;
  for (int64_t t = block.begin; t < block.end; ++t) {
    const std::span<const int32_t> list = choice.Of(t);
    if (list.empty()) continue;
    first = std::min<int64_t>(first, list.front());
    end = std::max<int64_t>(end, list.back() + 1);
  }
  return {std::min(first, end), end};
}

// words [rows][Words()] is scratch.
void Unite(const Choice& choice, uint64_t* words, SharedKeys& block) {
  const auto [first, end] = RowRange(choice, block);
  const int64_t each = block.Words();
  std::fill_n(words, (end - first) * each, 0);
  for (int64_t t = block.begin; t < block.end; ++t) {
    const int64_t i = t - block.begin;
    for (const int32_t row : choice.Of(t)) words[(row - first) * each + i / 64] |= uint64_t{1} << i % 64;
  }
  size_t count = 0;
  for (int64_t row = first; row < end; ++row) {
    const uint64_t* from = words + (row - first) * each;
    if (std::all_of(from, from + each, [](uint64_t word) { return word == 0; })) continue;
    if (count == block.rows.size()) {
      count = 0;
      break;
    }
    block.rows[count] = static_cast<int32_t>(row);
    std::copy_n(from, each, block.masks.data() + static_cast<int64_t>(count++) * each);
  }
  block.rows = block.rows.first(count);
  block.masks = block.masks.first(count * static_cast<size_t>(each));
}

}  // namespace

SharedKeys AllocSharedKeys(Arena& arena, int64_t begin, int64_t end, int64_t most) {
  FATHOM_CHECK(begin < end && end - begin <= kMostSharedQueries, "queries {}..{}", begin, end);
  SharedKeys block{begin, end, {}, {}};
  const int64_t words = most * block.Words();
  block.rows = {arena.AllocArray<int32_t>(most), static_cast<size_t>(most)};
  block.masks = {arena.AllocArray<uint64_t>(words), static_cast<size_t>(words)};
  return block;
}

void UniteKeys(const Choice& choice, int64_t most, std::span<SharedKeys> blocks, Arena& scratch) {
  const ArenaScope scope(scratch);
  const WorkerScratch<uint64_t> workers(scratch, most * (kMostSharedQueries / 64));
  workers.Run(std::ssize(blocks), [&](int64_t i, uint64_t* words) { Unite(choice, words, blocks[static_cast<size_t>(i)]); });
}

}  // namespace fathom
