// Byte-pair encoding of one piece: the adjacent pair with the lowest rank merges first, of equal ranks the leftmost
// (Sennrich et al. 2016, section 3.2, on bytes).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace fathom {

struct BpeMerge {
  int32_t left, right;  // token ids
  int32_t joined;       // id of the result
};

class BpeModel {
 public:
  static constexpr size_t kMaxPieceBytes = 0x7FFFFFFF;

  // byte_ids: the token of each byte; pieces hold no byte whose id is negative. merges: in order of rank; all ids >= 0; of a pair that
  // stands twice the later rank holds.
  BpeModel(const std::array<int32_t, 256>& byte_ids, const std::vector<BpeMerge>& merges);

  // Memory that Encode needs; one per thread, kept between calls.
  class Scratch {
    friend class BpeModel;
    struct Symbol {
      int32_t id, previous, next;  // positions; -1: none. id -1: merged into the symbol before
    };
    struct Candidate {
      uint64_t order;  // rank << 32 | position of the left symbol: the smallest merges first
      int32_t left, right, joined;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
    std::vector<int32_t> ids;
    std::vector<uint64_t> pairs;
  };

  // Appends the tokens of the piece to ids. At most kMaxPieceBytes. O(n log n) in the piece's length.
  void Encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  struct Slot {
    uint64_t pair;  // left << 32 | right; kEmpty: free
    uint32_t rank;
    int32_t joined;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0}, kNoMerge = ~uint64_t{0};

  const Slot* Find(int32_t left, int32_t right) const;
  uint64_t RankAndJoined(int32_t left, int32_t right) const;  // rank << 32 | joined; kNoMerge: no such merge
  void EncodeShort(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;
  void EncodeLong(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;
  void PushCandidate(int32_t position, Scratch& scratch) const;
  void MergeAt(const Scratch::Candidate& top, Scratch& scratch) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  int shift_;                // 64 - log2(slots)
};

}  // namespace fathom
