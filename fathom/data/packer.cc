#include "fathom/data/packer.h"

#include <algorithm>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr size_t kMostOpenRows = 64;  // of first fit: the search stays short

}  // namespace

Packing ParsePacking(std::string_view name) {
  if (name == "first_fit") return Packing::kFirstFit;
  if (name == "concat_then_split") return Packing::kConcatThenSplit;
  Throw(ErrorCode::kUsage, "grain_packing_type={}: must be first_fit or concat_then_split", name);
}

Packer::Packer(Packing packing, int64_t length, int64_t max_segments) : packing_(packing), length_(length), max_segments_(max_segments) {
  FATHOM_CHECK(length > 0);
}

bool Packer::Full(const OpenRow& open) const {
  if (open.free == 0 || packing_ == Packing::kNone) return true;
  return max_segments_ > 0 && static_cast<int64_t>(rows_[open.row].size()) >= max_segments_;
}

// The row that takes a span of count tokens; of concatenation the only open one, which may have less room.
Packer::OpenRow& Packer::OpenFor(int64_t count) {
  const int64_t least = packing_ == Packing::kConcatThenSplit ? 1 : count;
  const auto found = std::find_if(open_.begin(), open_.end(), [&](const OpenRow& open) { return open.free >= least; });
  if (found != open_.end()) return *found;
  if (open_.size() == kMostOpenRows) open_.erase(open_.begin());
  rows_.emplace_back();
  return open_.emplace_back(OpenRow{rows_.size() - 1, length_});
}

void Packer::Add(int64_t begin, int64_t count) {
  while (count > 0) {
    OpenRow& open = OpenFor(std::min(count, length_));
    const int64_t n = std::min(count, open.free);
    rows_[open.row].push_back({begin, n});
    open.free -= n;
    begin += n;
    count -= n;
    if (Full(open)) open_.erase(open_.begin() + (&open - open_.data()));
  }
}

PackedRows Packer::Finish() {
  PackedRows packed;
  for (const Row& row : rows_) {
    packed.spans.insert(packed.spans.end(), row.begin(), row.end());
    packed.first_span.push_back(static_cast<int64_t>(packed.spans.size()));
  }
  rows_.clear();
  open_.clear();
  return packed;
}

}  // namespace fathom
