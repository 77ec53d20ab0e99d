#include "fathom/kernels/moe/moe_dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/moe/moe_dispatch.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void CopyRows(const ConstView& x, const int32_t* row_token, const View& rows) {
  const bool same = x.dtype() == rows.dtype();
  const auto bytes = static_cast<size_t>(rows.dim(1) * DTypeSize(rows.dtype()));
  for (int64_t r = 0; r < rows.dim(0); ++r) {
    const InRow in = RowAt(x, row_token[r]);
    const OutRow out = RowAt(rows, r);
    if (same) {
      std::memcpy(out.data, in.data, bytes);
    } else {
      ForVectors(rows.dim(1), [&](auto at) { Store(at, Load(at, in), out); });
    }
  }
}

// out[t] (+)= sum over the token's slots, in order.
void SumSlots(const ConstView& rows, const int32_t* slot_row, int64_t chosen, const View& out, bool add) {
  for (int64_t t = 0; t < out.dim(0); ++t) {
    float* to = out.row<float>(t);
    const int32_t* slots = slot_row + t * chosen;
    ForVectors(out.dim(1), [&](auto at) {
      VF sum = add ? Load(at, to) : hn::Zero(DF());
      for (int64_t k = 0; k < chosen; ++k) {
        if (slots[k] >= 0) sum = hn::Add(sum, Load(at, RowAt(rows, slots[k])));
      }
      Store(at, sum, to);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(CopyRows);
HWY_EXPORT(SumSlots);

void BuildDispatch(std::span<const int32_t> ids, int64_t chosen, int64_t experts, std::span<int64_t> begin, std::span<int32_t> row_token,
                   std::span<int32_t> row_slot, std::span<int32_t> slot_row) {
  FATHOM_CHECK(
      std::ssize(begin) == experts + 1 && row_token.size() >= ids.size() && row_slot.size() >= ids.size() && slot_row.size() == ids.size(),
      "{} ids, {} experts", ids.size(), experts);
  std::fill(begin.begin(), begin.end(), 0);
  for (const int32_t id : ids) {
    FATHOM_CHECK(id < experts, "expert {} of {}", id, experts);
    if (id >= 0) ++begin[static_cast<size_t>(id) + 1];
  }
  for (size_t e = 0; e < static_cast<size_t>(experts); ++e) begin[e + 1] += begin[e];
  // begin[e] serves as expert e's cursor and ends as the next expert's start: shifted back afterwards.
  for (size_t slot = 0; slot < ids.size(); ++slot) {
    slot_row[slot] = -1;
    if (ids[slot] < 0) continue;
    const int64_t row = begin[static_cast<size_t>(ids[slot])]++;
    row_token[static_cast<size_t>(row)] = static_cast<int32_t>(static_cast<int64_t>(slot) / chosen);
    row_slot[static_cast<size_t>(row)] = static_cast<int32_t>(slot);
    slot_row[slot] = static_cast<int32_t>(row);
  }
  for (size_t e = static_cast<size_t>(experts); e > 0; --e) begin[e] = begin[e - 1];
  begin[0] = 0;
}

int64_t ExpertCapacity(int64_t tokens, int64_t chosen, int64_t experts, double factor) {
  const int64_t share = (tokens * chosen + experts - 1) / experts;
  return static_cast<int64_t>(std::max(static_cast<double>(share) * factor, factor));
}

int64_t DropOverCapacity(int64_t capacity, std::span<int32_t> ids, std::span<int64_t> work) {
  std::fill(work.begin(), work.end(), 0);
  int64_t dropped = 0;
  for (int32_t& id : ids) {
    FATHOM_CHECK(id < std::ssize(work), "expert {} of {}", id, work.size());
    if (id < 0 || ++work[static_cast<size_t>(id)] <= capacity) continue;
    id = -1;
    ++dropped;
  }
  return dropped;
}

void GatherRows(ConstView x, std::span<const int32_t> row_token, View rows) {
  FATHOM_CHECK(IsRowType(x.dtype()) && IsMatrix(rows, rows.dim(0), x.dim(1)) && std::ssize(row_token) >= rows.dim(0), "x {}, rows {}",
               x.shape().ToString(), rows.shape().ToString());
  ParallelRanges(rows.dim(0), RowGrain(rows.dim(1)), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(CopyRows)(x, row_token.data() + begin, rows.Rows(begin, end));
  });
}

void CombineRows(ConstView rows, std::span<const int32_t> slot_row, int64_t chosen, View out, bool add) {
  FATHOM_CHECK(IsRowType(rows.dtype()) && IsMatrix(out, out.dim(0), rows.dim(1)) && std::ssize(slot_row) == out.dim(0) * chosen,
               "rows {}, out {}, {} slots", rows.shape().ToString(), out.shape().ToString(), slot_row.size());
  ParallelRanges(out.dim(0), RowGrain(out.dim(1)), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SumSlots)(rows, slot_row.data() + begin * chosen, chosen, out.Rows(begin, end), add);
  });
}

void GatherSlots(std::span<const float> slots, std::span<const int32_t> row_slot, std::span<float> rows) {
  FATHOM_CHECK(row_slot.size() >= rows.size(), "{} rows", rows.size());
  for (size_t r = 0; r < rows.size(); ++r) rows[r] = slots[static_cast<size_t>(row_slot[r])];
}

void ScatterSlots(std::span<const float> rows, std::span<const int32_t> row_slot, std::span<float> slots) {
  FATHOM_CHECK(row_slot.size() >= rows.size(), "{} rows", rows.size());
  for (size_t r = 0; r < rows.size(); ++r) slots[static_cast<size_t>(row_slot[r])] = rows[r];
}

}  // namespace fathom
#endif  // HWY_ONCE
