#include "fathom/parquet/levels.h"

#include <algorithm>

namespace fathom {
namespace {

// A difference of a file is a zigzag integer; sums wrap around.
uint64_t UnZigZag(uint64_t n) { return (n >> 1) ^ (~(n & 1) + 1); }

}  // namespace

bool ReadVarInt(std::string_view bytes, size_t* at, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64 && *at < bytes.size(); shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes[(*at)++]);
    *value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

bool ReadBits(std::string_view bytes, uint64_t bit, int width, uint64_t* value) {
  *value = 0;
  if (width == 0) return true;
  const uint64_t end = bit + static_cast<uint64_t>(width);
  if ((end + 7) / 8 > bytes.size()) return false;
  for (uint64_t byte = bit / 8; byte < (end + 7) / 8; ++byte) {
    const uint64_t bits = static_cast<uint8_t>(bytes[byte]);
    const int64_t shift = static_cast<int64_t>(8 * byte) - static_cast<int64_t>(bit);
    *value |= shift >= 0 ? bits << shift : bits >> -shift;
  }
  if (width < 64) *value &= (uint64_t{1} << width) - 1;
  return true;
}

bool RunLengthReader::StartRun() {
  uint64_t head = 0;
  while (left_ == 0) {
    if (!ReadVarInt(bytes_, &at_, &head)) return false;
    packed_ = (head & 1) != 0;
    const uint64_t width = static_cast<uint64_t>(width_);
    const uint64_t rest = bytes_.size() - at_;
    // The last group may be cut off where its values end.
    const uint64_t bytes = packed_ ? std::min((head >> 1) > rest ? rest : (head >> 1) * width, rest) : (width + 7) / 8;
    if (bytes > rest) return false;
    group_ = bytes_.substr(at_, bytes);
    at_ += bytes;
    bit_ = 0;
    left_ = packed_ ? (head >> 1) * 8 : head >> 1;
    uint64_t value = 0;
    if (!packed_ && !ReadBits(group_, 0, static_cast<int>(8 * bytes), &value)) return false;
    value_ = static_cast<uint32_t>(value);
  }
  return true;
}

bool RunLengthReader::Unpack(uint32_t* value) {
  uint64_t bits = 0;
  if (!ReadBits(group_, bit_, width_, &bits)) return false;
  bit_ += static_cast<uint64_t>(width_);
  *value = static_cast<uint32_t>(bits);
  return true;
}

DeltaReader::DeltaReader(std::string_view bytes) : bytes_(bytes) {
  uint64_t first = 0;
  sound_ = ReadVarInt(bytes_, &at_, &block_) && ReadVarInt(bytes_, &at_, &mini_blocks_) && ReadVarInt(bytes_, &at_, &left_) &&
           ReadVarInt(bytes_, &at_, &first) && block_ > 0 && block_ <= 1 << 20 && mini_blocks_ > 0 && block_ % mini_blocks_ == 0 &&
           block_ / mini_blocks_ % 8 == 0;
  value_ = UnZigZag(first);
}

bool DeltaReader::StartBlock() {
  uint64_t least = 0;
  if (!ReadVarInt(bytes_, &at_, &least) || mini_blocks_ > bytes_.size() - at_) return false;
  least_ = static_cast<int64_t>(UnZigZag(least));
  widths_ = bytes_.substr(at_, mini_blocks_);
  at_ += mini_blocks_;
  mini_ = 0;
  return true;
}

bool DeltaReader::StartMiniBlock() {
  if ((widths_.empty() || mini_ == mini_blocks_) && !StartBlock()) return false;
  width_ = static_cast<uint8_t>(widths_[mini_++]);
  in_mini_ = block_ / mini_blocks_;
  bit_ = 8 * static_cast<uint64_t>(at_);
  const uint64_t bytes = in_mini_ / 8 * static_cast<uint64_t>(width_);
  at_ += std::min<uint64_t>(bytes, bytes_.size() - at_);
  return width_ <= 64;
}

bool DeltaReader::Next(int64_t* value) {
  if (!sound_ || left_ == 0) return false;
  --left_;
  if (!first_) {
    if (in_mini_ == 0 && !StartMiniBlock()) return false;
    --in_mini_;
    uint64_t delta = 0;
    if (!ReadBits(bytes_, bit_, width_, &delta)) return false;
    bit_ += static_cast<uint64_t>(width_);
    value_ += delta + static_cast<uint64_t>(least_);
  }
  first_ = false;
  *value = static_cast<int64_t>(value_);
  return true;
}

size_t DeltaReader::SkipAll() {
  int64_t value = 0;
  while (Next(&value)) {
  }
  return at_;
}

}  // namespace fathom
