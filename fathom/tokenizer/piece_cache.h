// Remembers the tokens of short pieces: most of a text is a few thousand words. One per thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace fathom {

class PieceCache {
 public:
  static constexpr size_t kMaxBytes = 16, kMaxTokens = 3;

  PieceCache() : entries_(size_t{1} << kLogEntries) {}

  // A short piece (1..kMaxBytes bytes) as two words, padded with zeros.
  struct Key {
    uint64_t low, high;
    uint8_t length;
    size_t Index() const {
      const uint64_t h = (low ^ (high * 0xC2B2AE3D27D4EB4Full) ^ length) * 0x9E3779B97F4A7C15ull;
      return static_cast<size_t>((h ^ (h >> 29)) * 0xBF58476D1CE4E5B9ull >> (64 - kLogEntries));
    }
  };
  static Key MakeKey(std::string_view piece) {
    char bytes[kMaxBytes] = {};
    std::memcpy(bytes, piece.data(), piece.size());
    Key key{0, 0, static_cast<uint8_t>(piece.size())};
    std::memcpy(&key.low, bytes, 8);
    std::memcpy(&key.high, bytes + 8, 8);
    return key;
  }

  // Appends the piece's tokens to ids; false if they are not known.
  bool Append(const Key& key, std::vector<int32_t>& ids) const {
    const Entry& e = entries_[key.Index()];
    if (e.low != key.low || e.high != key.high || e.length != key.length) return false;
    ids.insert(ids.end(), e.ids, e.ids + e.count);
    return true;
  }
  // ids: count tokens, ignored if more than kMaxTokens. Replaces what shared the place.
  void Put(const Key& key, const int32_t* ids, size_t count) {
    if (count > kMaxTokens) return;
    Entry& e = entries_[key.Index()];
    e = {key.low, key.high, {}, key.length, static_cast<uint8_t>(count)};
    std::memcpy(e.ids, ids, count * sizeof(int32_t));
  }

 private:
  static constexpr int kLogEntries = 15;  // 1 MB: a core's second-level cache
  struct Entry {
    uint64_t low, high;
    int32_t ids[kMaxTokens];
    uint8_t length, count;  // length 0: free
  };
  std::vector<Entry> entries_;
};

}  // namespace fathom
