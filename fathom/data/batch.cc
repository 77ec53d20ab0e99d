#include "fathom/data/batch.h"

#include <algorithm>
#include <numeric>

#include "fathom/base/error.h"

namespace fathom {

void Batch::Clear(int64_t new_rows, int64_t new_length) {
  rows = new_rows;
  length = new_length;
  const auto n = static_cast<size_t>(tokens());
  for (auto* array : {&ids, &targets, &positions, &segment_ids}) array->assign(n, 0);
  weights.assign(n, 0.0f);
  segments.clear();
  target_count = text_bytes = 0;
}

void Batch::AddSegment(int64_t begin, int64_t n, const int32_t* new_ids, const int32_t* new_targets, int32_t segment_id,
                       const uint8_t* mask) {
  FATHOM_CHECK(n > 0 && begin >= 0 && begin / length == (begin + n - 1) / length && begin + n <= tokens(), "{} tokens at {}", n, begin);
  std::copy_n(new_ids, n, ids.begin() + begin);
  std::copy_n(new_targets, n, targets.begin() + begin);
  std::iota(positions.begin() + begin, positions.begin() + begin + n, 0);
  std::fill_n(segment_ids.begin() + begin, n, segment_id);
  std::fill_n(weights.begin() + begin, n, 1.0f);
  if (mask != nullptr) std::copy_n(mask, n, weights.begin() + begin);
  segments.push_back({begin, begin + n});
  target_count += mask == nullptr ? n : std::count_if(mask, mask + n, [](uint8_t counted) { return counted != 0; });
}

void Batch::CopyRow(int64_t row, const Batch& other) {
  FATHOM_CHECK(other.rows == 1 && other.length == length && row >= 0 && row < rows);
  const int64_t begin = row * length;
  const auto copy = [&](const auto& from, auto& to) { std::copy(from.begin(), from.end(), to.begin() + begin); };
  copy(other.ids, ids);
  copy(other.targets, targets);
  copy(other.positions, positions);
  copy(other.segment_ids, segment_ids);
  copy(other.weights, weights);
  for (const TokenRange& s : other.segments) segments.push_back({begin + s.begin, begin + s.end});
  target_count += other.target_count;
  text_bytes += other.text_bytes;
}

}  // namespace fathom
