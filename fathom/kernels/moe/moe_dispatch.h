// Dropless dispatch: assignments (token, k) sorted by expert, stable in token order, so that each expert's rows are contiguous.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/view.h"

namespace fathom {

// ids [T*K] in 0..E-1 (token-major); an id < 0 is an assignment that was dropped: it gets no row. Overwrites begin [E+1] (rows of expert e:
// begin[e]..begin[e+1]), row_token [T*K] (token of each row), row_slot [T*K] (assignment t*K+k of each row), slot_row [T*K] (row of each
// assignment, -1 if dropped).
void BuildDispatch(std::span<const int32_t> ids, int64_t chosen, int64_t experts, std::span<int64_t> begin, std::span<int32_t> row_token,
                   std::span<int32_t> row_slot, std::span<int32_t> slot_row);

// Capacity of each expert per sequence (MaxText): max(ceil(S K / E) * factor, factor), rounded down; S tokens in the sequence.
int64_t ExpertCapacity(int64_t tokens, int64_t chosen, int64_t experts, double factor);

// Drops (id = -1) the assignments of one sequence that come, in (token, k) order, after an expert's first `capacity`. ids [S*K] in 0..E-1,
// work [E]. Returns how many were dropped.
int64_t DropOverCapacity(int64_t capacity, std::span<int32_t> ids, std::span<int64_t> work);

// rows[r] = x[row_token[r]].  x [T,D], rows [R,D], F32|BF16 each (converted if they differ).
void GatherRows(ConstView x, std::span<const int32_t> row_token, View rows);

// out[t] (+)= sum over k, in order, of rows[slot_row[t*K+k]].  rows [R,D] F32|BF16, out [T,D] F32. Dropped slots add nothing.
void CombineRows(ConstView rows, std::span<const int32_t> slot_row, int64_t chosen, View out, bool add);

// values[r] = slots[row_slot[r]] and back.
void GatherSlots(std::span<const float> slots, std::span<const int32_t> row_slot, std::span<float> rows);
void ScatterSlots(std::span<const float> rows, std::span<const int32_t> row_slot, std::span<float> slots);

}  // namespace fathom
