// Small integers as Parquet packs them: levels of nested values and indices into a dictionary.
#pragma once

#include <cstdint>
#include <string_view>

namespace fathom {

// Runs of one value and groups of eight bit-packed ones, one after the other; nothing is allocated, whatever the counts say.
class RunLengthReader {
 public:
  RunLengthReader() = default;
  // bit_width: 0 to 32.
  RunLengthReader(std::string_view bytes, int bit_width) : bytes_(bytes), width_(bit_width) {}
  // False: the bytes have ended.
  bool Next(uint32_t* value) {
    if (left_ == 0 && !StartRun()) return false;
    --left_;
    if (!packed_) {
      *value = value_;
      return true;
    }
    return Unpack(value);
  }

 private:
  bool StartRun();
  bool Unpack(uint32_t* value);

  std::string_view bytes_;
  int width_ = 0;
  size_t at_ = 0;      // of the next run
  uint64_t left_ = 0;  // values of this one
  bool packed_ = false;
  uint32_t value_ = 0;
  std::string_view group_;  // the packed values
  uint64_t bit_ = 0;        // of the next one
};

// A variable-length integer at *at; false: it doesn't end.
bool ReadVarInt(std::string_view bytes, size_t* at, uint64_t* value);
// width bits from a bit on, the lowest first; false: beyond the end. width: at most 64.
bool ReadBits(std::string_view bytes, uint64_t bit, int width, uint64_t* value);

// Differences, bit-packed in blocks (DELTA_BINARY_PACKED).
class DeltaReader {
 public:
  DeltaReader() = default;
  explicit DeltaReader(std::string_view bytes);
  // False: the values have ended, or the bytes are damaged.
  bool Next(int64_t* value);
  // Values that are still to come, as the header says.
  uint64_t left() const { return left_; }
  // Bytes that all of them take: what follows them begins there. Reads them.
  size_t SkipAll();

 private:
  bool StartBlock();
  bool StartMiniBlock();

  std::string_view bytes_;
  size_t at_ = 0;
  bool sound_ = false, first_ = true;
  uint64_t block_ = 0, mini_blocks_ = 0, left_ = 0;
  uint64_t mini_ = 0, in_mini_ = 0;  // mini blocks begun in this block; values left in this mini block
  int64_t least_ = 0;
  uint64_t value_ = 0;
  std::string_view widths_;
  uint64_t bit_ = 0;
  int width_ = 0;
};

}  // namespace fathom
