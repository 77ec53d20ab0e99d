#include "fathom/layers/context_rows.h"

#include <algorithm>
#include <vector>

#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {

void ContextRows::Gather(ConstView own, View all) const {
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  for (int r = 0; r < comm_.size(); ++r) {
    ForChunks(r, [&](int64_t theirs, int64_t whole) {
      const View place = all.Rows(whole, whole + chunk_);
      const ConstView mine = own.Rows(theirs, theirs + chunk_);  // of this rank, with the same number
      if (r == comm_.rank()) return Cast(mine, place);
      out.push_back({r, BytesOf(mine)});
      in.push_back({r, BytesOf(place)});
    });
  }
  comm_.Exchange(out, in);
}

std::span<int32_t> ContextRows::GatherIds(std::span<const int32_t> own, int64_t each, Arena& scratch) const {
  const auto as_view = [&](std::span<float> x) { return ViewOf(x.data(), {std::ssize(x) / each, each}); };
  const std::span<int32_t> result = scratch.AllocSpan<int32_t>(all() * each);
  ArenaScope scope(scratch);
  const std::span<float> mine = scratch.AllocSpan<float>(std::ssize(own)), of_all = scratch.AllocSpan<float>(std::ssize(result));
  std::ranges::copy(own, mine.begin());  // exact
  Gather(as_view(mine), as_view(of_all));
  std::ranges::transform(of_all, result.begin(), [](float id) { return static_cast<int32_t>(id); });
  return result;
}

// In the order of the ranks.
void ContextRows::Reduce(ConstView all, View own, Arena& scratch) const {
  ArenaScope scope(scratch);
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  std::vector<ConstView> parts;
  for (int r = 0; r < comm_.size(); ++r) {
    const View part = scratch.Alloc(DType::kF32, own.shape());
    ForChunks(r, [&](int64_t theirs, int64_t whole) {
      const ConstView for_them = all.Rows(whole, whole + chunk_);
      const View place = part.Rows(theirs, theirs + chunk_);
      if (r == comm_.rank()) return Cast(for_them, place);
      out.push_back({r, BytesOf(for_them)});
      in.push_back({r, BytesOf(place)});
    });
    parts.push_back(part);
  }
  comm_.Exchange(out, in);
  Cast(parts[0], own);
  for (size_t r = 1; r < parts.size(); ++r) AddScaled(1, parts[r], own);
}

}  // namespace fathom
