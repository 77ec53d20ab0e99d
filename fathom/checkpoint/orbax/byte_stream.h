// Reading and writing the byte strings of a binary format: every read is checked against the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

class ByteReader {
 public:
  // where names the file (and place) in errors, which are Error(kInput). The bytes must outlive the reader.
  ByteReader(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  std::span<const std::byte> Take(uint64_t n);
  std::string_view TakeText(uint64_t n);
  uint8_t U8() { return static_cast<uint8_t>(Take(1)[0]); }
  uint32_t U32();     // little endian
  uint32_t U32Big();  // big endian
  uint64_t U64();     // little endian
  // LEB128: seven bits a byte, the low ones first.
  uint64_t Varint();
  // A varint that counts things of at least one byte each: more than bytes are left is an error, before anything is allocated.
  size_t Count();
  std::vector<uint64_t> Varints(size_t n);
  std::vector<uint64_t> U64s(size_t n);
  std::vector<uint8_t> U8s(size_t n);

  size_t left() const { return bytes_.size() - at_; }
  std::span<const std::byte> rest() const { return bytes_.subspan(at_); }
  const std::string& where() const { return where_; }
  void CheckAllRead() const;
  [[noreturn]] void Fail(const std::string& what) const;

 private:
  std::span<const std::byte> bytes_;
  std::string where_;
  size_t at_ = 0;
};

class ByteWriter {
 public:
  void U8(uint8_t x) { bytes_.push_back(static_cast<char>(x)); }
  void U32(uint32_t x);
  void U32Big(uint32_t x);
  void U64(uint64_t x);
  void Varint(uint64_t x);
  void Text(std::string_view text) { bytes_.append(text); }

  const std::string& bytes() const { return bytes_; }
  std::span<const std::byte> span() const { return std::as_bytes(std::span(bytes_)); }

 private:
  std::string bytes_;
};

// CRC-32C (Castagnoli, RFC 3720 appendix B.4); before: that of the bytes in front of these, where they come in pieces.
uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t before = 0);

}  // namespace fathom
