#include "fathom/kernels/attention/mla_chosen.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/attention/mla_chosen.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/attention/mla_backward-inl.h"
#include "fathom/kernels/attention/mla_chosen_plan.h"
#include "fathom/kernels/attention/mla_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

struct MaskedKeys : SharedKeys {
  explicit MaskedKeys(const SharedKeys& s) : SharedKeys(s) {}
  template <class F>
  void WithSight(int64_t i, int64_t queries, int64_t entry, int64_t n, const F& f) const {
    const MaskedSight sight({queries, n, n}, masks.data() + entry * Words() + i / 64, Words());
    if (sight.any != 0) f(sight);
  }
};
static_assert(kForwardQueries <= kQueryChunk && kQueryBlock == 64, "a block of queries is one word of a mask");

void ChosenForwardJob(const MlaForwardArgs& a, const SharedKeys& block, int64_t head, float* scratch) {
  const ForwardScratch w(a.shape, scratch);
  WithPath(a.pairs, a.q.dtype() == DType::kBF16,
           [&](const auto& path) { ForwardChunk(path, a, MaskedKeys(block), head, block.begin, block.end, w); });
}

// One block of queries and one head: their dq, and what they add to the gradients of keys and values.
template <class Path>
void BackwardShared(const Path& path, const MlaBackwardArgs& a, const MaskedKeys& block, int64_t head, const BackwardScratch& w,
                    const KeySums& sums) {
  const int64_t width = a.width(), wide = PadBlock(width), v_wide = PadBlock(a.shape.v_dim), length = block.end - block.begin;
  PackQueries<Path>(a, block.begin, block.end, head, w);
  BackwardScratch blocks = w;
  for (int64_t first = 0; first < block.count(); first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, block.count() - first);
    PackKeys<Path>(a, head, block, first, n, blocks);
    for (int64_t i = 0; i < length; i += kQueryBlock) {
      block.WithSight(i, std::min(kQueryBlock, length - i), first, n, [&](const auto& sight) { BackwardBlock(path, a, sight, i, blocks); });
    }
    for (int64_t j = 0; j < n; ++j) {
      AddRow(w.d_keys + j * wide, width, sums.Key(block.Row(first + j)));
      AddRow(w.d_values + j * v_wide, a.shape.v_dim, sums.Value(block.Row(first + j)));
    }
  }
  for (int64_t i = 0; i < length; ++i) StoreRow(w.dq + i * wide, 1, width, RowAt(a.dq, block.begin + i, head * width));
}

void AddToRow(const float* from, int64_t n, const OutRow& to) {
  ForVectors(n, [&](auto at) { Store(at, hn::Add(Load(at, from), Load(at, InRow{to.data, to.dtype})), to); });
}

// What one head's sums add to the gradients; its part of the rope gradient to the group's.
void AddSums(const MlaBackwardArgs& a, int64_t head, const KeySums& sums, float* d_rope) {
  const MlaShape& s = a.shape;
  const int64_t column = head * (s.nope_dim + s.v_dim);
  for (int64_t row = sums.begin; row < sums.end; ++row) {
    AddToRow(sums.Key(row), s.nope_dim, RowAt(a.dkv, row, column));
    AddToRow(sums.Value(row), s.v_dim, RowAt(a.dkv, row, column + s.nope_dim));
    AddRow(sums.Key(row) + s.nope_dim, s.rope_dim, d_rope + row * s.rope_dim);
  }
}

// The blocks of queries of one range of keys, heads [begin, end).
void ChosenBackwardJob(const MlaBackwardArgs& a, std::span<const SharedKeys> blocks, int64_t begin, int64_t end, const KeySums& sums,
                       float* scratch, float* d_rope) {
  const BackwardScratch w(a.shape, kMostSharedQueries, scratch);
  std::fill_n(d_rope + sums.begin * a.shape.rope_dim, (sums.end - sums.begin) * a.shape.rope_dim, 0.0f);
  WithPath(a.pairs, a.q.dtype() == DType::kBF16, [&](const auto& path) {
    for (int64_t head = begin; head < end; ++head) {
      sums.Clear();
      for (const SharedKeys& block : blocks) BackwardShared(path, a, MaskedKeys(block), head, w, sums);
      AddSums(a, head, sums, d_rope);
    }
  });
}

void AddGroups(const RopeGradientParts& from, const View& dk_rope, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t g = 0; g < from.groups; ++g) AddRow(from.Group(g) + t * from.rope_dim, from.rope_dim, dk_rope.row<float>(t));
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/base/threads.h"
#include "fathom/kernels/simd/rows.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {
HWY_EXPORT(ChosenForwardJob);
HWY_EXPORT(ChosenBackwardJob);
HWY_EXPORT(AddGroups);

void CheckBlocks(std::span<const SharedKeys> blocks, int64_t most, int64_t queries, int64_t keys) {
  if (PlanScope::Active()) return;
  for (const SharedKeys& b : blocks) {
    FATHOM_CHECK(0 <= b.begin && b.begin < b.end && b.end <= std::min(queries, b.begin + most), "queries {}..{}", b.begin, b.end);
    FATHOM_CHECK(b.rows.empty() || (0 <= b.rows.front() && b.rows.back() < keys), "rows of {}", keys);
    FATHOM_CHECK(std::ssize(b.masks) == b.count() * b.Words(), "{} masks, {} rows", b.masks.size(), b.rows.size());
  }
}

// Neighbouring blocks whose keys overlap are one document: [first, end) of the list. Different ones share no key.
struct Document {
  int64_t first, end, k_begin, k_end;
};
std::span<const Document> DivideBlocks(Arena& scratch, std::span<const SharedKeys> blocks, int64_t keys) {
  const std::span<Document> list = scratch.AllocSpan<Document>(std::ssize(blocks));
  if (scratch.counting()) {  // rows have no memory
    if (!blocks.empty()) list[0] = {0, std::ssize(blocks), 0, keys};
    return list.first(std::min<size_t>(1, blocks.size()));
  }
  size_t count = 0;
  for (int64_t i = 0; i < std::ssize(blocks); ++i) {
    const SharedKeys& b = blocks[static_cast<size_t>(i)];
    Document next{i, i + 1, b.rows.empty() ? 0 : b.rows.front(), b.rows.empty() ? 0 : b.rows.back() + 1};
    while (count > 0 && next.k_begin < list[count - 1].k_end) {
      const Document& last = list[--count];
      next = {last.first, next.end, std::min(last.k_begin, next.k_begin), std::max(last.k_end, next.k_end)};
    }
    list[count++] = next;
  }
  return list.first(count);
}

}  // namespace

void MlaChosenForward(const MlaShape& shape, std::span<const SharedKeys> blocks, const MlaInputs& in, View o, View lse, Arena& scratch,
                      View top) {
  const MlaForwardArgs a{{in, shape, CheckMlaInputs(shape, {}, in)}, o, lse, top};
  FATHOM_CHECK(IsMatrix(o, in.q.dim(0), shape.heads * shape.v_dim) && o.dtype() == in.q.dtype(), "o {}", o.shape().ToString());
  for (const View& x : {lse, top})
    FATHOM_CHECK(x.empty() || (IsMatrix(x, in.q.dim(0), shape.heads) && x.dtype() == DType::kF32), "lse or top {}", x.shape().ToString());
  CheckBlocks(blocks, kForwardQueries, in.q.dim(0), in.kv.dim(0));
  const ArenaScope scope(scratch);
  const WorkerScratch<float> workers(scratch, ForwardScratch::Floats(shape));
  const int64_t count = std::ssize(blocks);
  // From the last block, which sees the most keys, to the first.
  workers.Run(count * shape.heads, [&](int64_t job, float* own) {
    HWY_DYNAMIC_DISPATCH(ChosenForwardJob)(a, blocks[static_cast<size_t>(count - 1 - job / shape.heads)], job % shape.heads, own);
  });
}

void MlaChosenBackward(const MlaShape& shape, std::span<const SharedKeys> blocks, const MlaInputs& in, const MlaOutputs& out,
                       const MlaChosenGradients& gradients, Arena& scratch) {
  const MlaBackwardArgs a{{in, shape, CheckMlaInputs(shape, {}, in)}, out, {gradients.dq, gradients.dkv, {}}};
  CheckMlaGradients(a);
  const int64_t keys = in.kv.dim(0), groups = HeadGroups(shape);
  FATHOM_CHECK(IsMatrix(gradients.dk_rope, keys, shape.rope_dim) && gradients.dk_rope.dtype() == DType::kF32, "dk_rope {}",
               gradients.dk_rope.shape().ToString());
  CheckBlocks(blocks, kMostSharedQueries, in.q.dim(0), keys);
  const ArenaScope scope(scratch);
  const std::span<const Document> documents = DivideBlocks(scratch, blocks, keys);
  int64_t longest = 0;
  for (const Document& d : documents) longest = std::max(longest, d.k_end - d.k_begin);
  const RopeGradientParts d_rope{scratch.AllocArray<float>(groups * keys * shape.rope_dim), groups, keys, shape.rope_dim};
  const int64_t own_floats = BackwardScratch::Floats(shape, kMostSharedQueries);
  const WorkerScratch<float> workers(scratch, own_floats + KeySums::Floats(shape, longest));
  workers.Run(std::ssize(documents) * groups, [&](int64_t job, float* own) {
    const Document& d = documents[static_cast<size_t>(job / groups)];
    const int64_t group = job % groups, begin = shape.heads * group / groups, end = shape.heads * (group + 1) / groups;
    HWY_DYNAMIC_DISPATCH(ChosenBackwardJob)
    (a, blocks.subspan(static_cast<size_t>(d.first), static_cast<size_t>(d.end - d.first)), begin, end,
     KeySums(shape, d.k_begin, d.k_end, own + own_floats), own, d_rope.Group(group));
  });
  for (const Document& d : documents) {
    ParallelRanges(d.k_end - d.k_begin, 64, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(AddGroups)(d_rope, gradients.dk_rope, d.k_begin + begin, d.k_begin + end);
    });
  }
}

}  // namespace fathom
#endif  // HWY_ONCE
