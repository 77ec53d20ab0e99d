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

// words [rows][kMaskWords] is scratch.
void Unite(const Choice& choice, uint64_t* words, SharedKeys& block) {
  const auto [first, end] = RowRange(choice, block);
  std::fill_n(words, (end - first) * kMaskWords, 0);
  for (int64_t t = block.begin; t < block.end; ++t) {
    const int64_t i = t - block.begin;
    for (const int32_t row : choice.Of(t)) words[(row - first) * kMaskWords + i / 64] |= uint64_t{1} << i % 64;
  }
  size_t count = 0;
  for (int64_t row = first; row < end; ++row) {
    const uint64_t* from = words + (row - first) * kMaskWords;
    if (std::all_of(from, from + kMaskWords, [](uint64_t word) { return word == 0; })) continue;
    if (count == block.rows.size()) {
      count = 0;
      break;
    }
    block.rows[count] = static_cast<int32_t>(row);
    std::copy_n(from, kMaskWords, block.masks.data() + static_cast<int64_t>(count++) * kMaskWords);
  }
  block.rows = block.rows.first(count);
  block.masks = block.masks.first(count * kMaskWords);
}

}  // namespace

SharedKeys AllocSharedKeys(Arena& arena, int64_t begin, int64_t end, int64_t most) {
  FATHOM_CHECK(begin < end && end - begin <= kSharedQueries, "queries {}..{}", begin, end);
  const auto n = static_cast<size_t>(most);
  return {begin, end, {arena.AllocArray<int32_t>(most), n}, {arena.AllocArray<uint64_t>(most * kMaskWords), n * kMaskWords}};
}

void UniteKeys(const Choice& choice, int64_t most, std::span<SharedKeys> blocks, Arena& scratch) {
  const ArenaScope scope(scratch);
  const WorkerScratch<uint64_t> workers(scratch, most * kMaskWords);
  workers.Run(std::ssize(blocks), [&](int64_t i, uint64_t* words) { Unite(choice, words, blocks[static_cast<size_t>(i)]); });
}

}  // namespace fathom
