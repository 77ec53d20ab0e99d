#include "fathom/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstddef>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// Up to this many bytes a scan for the lowest rank is faster than a heap.
constexpr size_t kShortPiece = 48;

uint64_t Pair(int32_t left, int32_t right) { return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right); }

}  // namespace

BpeModel::BpeModel(const std::array<int32_t, 256>& byte_ids, const std::vector<BpeMerge>& merges)
    : byte_ids_(byte_ids), slots_(std::bit_ceil(std::max<size_t>(16, 2 * merges.size())), Slot{kEmpty, 0, 0}) {
  shift_ = 64 - std::countr_zero(slots_.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const BpeMerge& m = merges[rank];
    auto* slot = const_cast<Slot*>(Find(m.left, m.right));
    *slot = {Pair(m.left, m.right), static_cast<uint32_t>(rank), m.joined};
  }
}

// The pair's slot, or the free one where it would stand.
const BpeModel::Slot* BpeModel::Find(int32_t left, int32_t right) const {
  const uint64_t pair = Pair(left, right), mask = slots_.size() - 1;
  uint64_t i = (pair * 0x9E3779B97F4A7C15ull) >> shift_;
  while (slots_[i].pair != pair && slots_[i].pair != kEmpty) i = (i + 1) & mask;
  return &slots_[i];
}

uint64_t BpeModel::RankAndJoined(int32_t left, int32_t right) const {
  const Slot* slot = Find(left, right);
  return slot->pair == kEmpty ? kNoMerge : (uint64_t{slot->rank} << 32) | static_cast<uint32_t>(slot->joined);
}

void BpeModel::Encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  piece.size() <= kShortPiece ? EncodeShort(piece, scratch, ids) : EncodeLong(piece, scratch, ids);
}

void BpeModel::EncodeShort(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  auto& symbols = scratch.ids;
  auto& pairs = scratch.pairs;  // pairs[i]: merging symbols i and i + 1
  symbols.clear();
  pairs.clear();
  for (const char byte : piece) symbols.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
  for (size_t i = 0; i + 1 < symbols.size(); ++i) pairs.push_back(RankAndJoined(symbols[i], symbols[i + 1]));
  while (!pairs.empty()) {
    const auto best = std::min_element(pairs.begin(), pairs.end(), [](uint64_t a, uint64_t b) { return (a >> 32) < (b >> 32); });
    if (*best == kNoMerge) break;
    const auto i = static_cast<size_t>(best - pairs.begin());
    symbols[i] = static_cast<int32_t>(*best & 0xFFFFFFFFu);
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    pairs.erase(best);
    if (i < pairs.size()) pairs[i] = RankAndJoined(symbols[i], symbols[i + 1]);
    if (i > 0) pairs[i - 1] = RankAndJoined(symbols[i - 1], symbols[i]);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

void BpeModel::PushCandidate(int32_t position, Scratch& scratch) const {
  const auto& left = scratch.symbols[static_cast<size_t>(position)];
  if (left.next < 0) return;
  const int32_t right = scratch.symbols[static_cast<size_t>(left.next)].id;
  const Slot* slot = Find(left.id, right);
  if (slot->pair == kEmpty) return;
  scratch.heap.push_back({(uint64_t{slot->rank} << 32) | static_cast<uint32_t>(position), left.id, right, slot->joined});
  std::push_heap(scratch.heap.begin(), scratch.heap.end(), [](const auto& a, const auto& b) { return a.order > b.order; });
}

// Skips a candidate whose symbols have changed since it was pushed.
void BpeModel::MergeAt(const Scratch::Candidate& top, Scratch& scratch) const {
  const auto position = static_cast<int32_t>(top.order & 0xFFFFFFFFu);
  auto& left = scratch.symbols[static_cast<size_t>(position)];
  if (left.id != top.left || left.next < 0) return;
  auto& right = scratch.symbols[static_cast<size_t>(left.next)];
  if (right.id != top.right) return;
  left.id = top.joined;
  left.next = right.next;
  right.id = -1;
  if (left.next >= 0) scratch.symbols[static_cast<size_t>(left.next)].previous = position;
  if (left.previous >= 0) PushCandidate(left.previous, scratch);
  PushCandidate(position, scratch);
}

void BpeModel::EncodeLong(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  FATHOM_CHECK(piece.size() <= kMaxPieceBytes, "{} bytes", piece.size());
  const auto n = static_cast<int32_t>(piece.size());
  scratch.symbols.clear();
  scratch.heap.clear();
  for (int32_t i = 0; i < n; ++i) {
    scratch.symbols.push_back({byte_ids_[static_cast<unsigned char>(piece[static_cast<size_t>(i)])], i - 1, i + 1 < n ? i + 1 : -1});
  }
  for (int32_t i = 0; i < n; ++i) PushCandidate(i, scratch);
  while (!scratch.heap.empty()) {
    std::pop_heap(scratch.heap.begin(), scratch.heap.end(), [](const auto& a, const auto& b) { return a.order > b.order; });
    const Scratch::Candidate top = scratch.heap.back();
    scratch.heap.pop_back();
    MergeAt(top, scratch);
  }
  for (const auto& symbol : scratch.symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

}  // namespace fathom
