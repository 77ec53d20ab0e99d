// Dispatch and combine the obvious way: expert by expert, token by token.
#pragma once

#include <cstdint>
#include <vector>

namespace fathom {

struct DispatchRef {
  std::vector<int64_t> begin;
  std::vector<int32_t> row_token, row_slot, slot_row;
};

inline DispatchRef BuildDispatchRef(const std::vector<int32_t>& ids, int64_t chosen, int64_t experts) {
  DispatchRef out;
  out.slot_row.assign(ids.size(), -1);
  for (int32_t e = 0; e < experts; ++e) {
    out.begin.push_back(static_cast<int64_t>(out.row_slot.size()));
    for (size_t slot = 0; slot < ids.size(); ++slot) {
      if (ids[slot] != e) continue;
      out.slot_row[slot] = static_cast<int32_t>(out.row_slot.size());
      out.row_slot.push_back(static_cast<int32_t>(slot));
      out.row_token.push_back(static_cast<int32_t>(static_cast<int64_t>(slot) / chosen));
    }
  }
  out.begin.push_back(static_cast<int64_t>(out.row_slot.size()));
  return out;
}

// out[t] += the rows of its slots.
template <class T>
void CombineRowsRef(const std::vector<T>& rows, int64_t d, const std::vector<int32_t>& slot_row, int64_t chosen, std::vector<T>& out) {
  for (size_t slot = 0; slot < slot_row.size(); ++slot) {
    const auto token = static_cast<int64_t>(slot) / chosen;
    for (int64_t i = 0; i < d && slot_row[slot] >= 0; ++i)
      out[static_cast<size_t>(token * d + i)] += rows[static_cast<size_t>(slot_row[slot] * d + i)];
  }
}

template <class T>
std::vector<T> GatherRowsRef(const std::vector<T>& x, int64_t d, const std::vector<int32_t>& row_token) {
  std::vector<T> rows;
  for (const int32_t token : row_token) rows.insert(rows.end(), x.begin() + token * d, x.begin() + (token + 1) * d);
  return rows;
}

}  // namespace fathom
