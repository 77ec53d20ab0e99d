#include "fathom/checkpoint/orbax/byte_stream.h"

#include <array>
#include <bit>
#include <cstring>

#include "fathom/base/error.h"

namespace fathom {
namespace {

static_assert(std::endian::native == std::endian::little, "little-endian numbers are copied as they are");

template <class T>
T Load(std::span<const std::byte> bytes) {
  T x;
  std::memcpy(&x, bytes.data(), sizeof x);
  return x;
}

template <class T>
void Append(std::string& out, T x) {
  out.append(reinterpret_cast<const char*>(&x), sizeof x);
}

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) ? 0x82F63B78u : 0u);
    table[i] = c;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = MakeCrcTable();

}  // namespace

void ByteReader::Fail(const std::string& what) const { Throw(ErrorCode::kInput, "{}: {}", where_, what); }

std::span<const std::byte> ByteReader::Take(uint64_t n) {
  if (n > left()) Fail(fmt::format("{} bytes wanted where {} are left: truncated or damaged", n, left()));
  const auto taken = bytes_.subspan(at_, static_cast<size_t>(n));
  at_ += taken.size();
  return taken;
}

std::string_view ByteReader::TakeText(uint64_t n) {
  const auto bytes = Take(n);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

uint32_t ByteReader::U32() { return Load<uint32_t>(Take(4)); }
uint32_t ByteReader::U32Big() { return __builtin_bswap32(U32()); }
uint64_t ByteReader::U64() { return Load<uint64_t>(Take(8)); }

uint64_t ByteReader::Varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint64_t byte = U8();
    if (shift == 63 && byte > 1) break;
    value |= (byte & 127) << shift;
    if (byte < 128) return value;
  }
  Fail("a number is longer than 64 bits: damaged");
}

size_t ByteReader::Count() {
  const uint64_t n = Varint();
  if (n > left()) Fail(fmt::format("a list of {} entries in {} bytes: damaged", n, left()));
  return static_cast<size_t>(n);
}

std::vector<uint64_t> ByteReader::Varints(size_t n) {
  std::vector<uint64_t> out(n);
  for (uint64_t& x : out) x = Varint();
  return out;
}

std::vector<uint64_t> ByteReader::U64s(size_t n) {
  std::vector<uint64_t> out(n);
  for (uint64_t& x : out) x = U64();
  return out;
}

std::vector<uint8_t> ByteReader::U8s(size_t n) {
  std::vector<uint8_t> out(n);
  for (uint8_t& x : out) x = U8();
  return out;
}

void ByteReader::CheckAllRead() const {
  if (left() != 0) Fail(fmt::format("{} bytes left over: damaged", left()));
}

void ByteWriter::U32(uint32_t x) { Append(bytes_, x); }
void ByteWriter::U32Big(uint32_t x) { Append(bytes_, __builtin_bswap32(x)); }
void ByteWriter::U64(uint64_t x) { Append(bytes_, x); }

void ByteWriter::Varint(uint64_t x) {
  for (; x >= 128; x >>= 7) U8(static_cast<uint8_t>(x | 128));
  U8(static_cast<uint8_t>(x));
}

uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t before) {
  uint32_t crc = ~before;
  for (const std::byte b : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<uint32_t>(b)) & 255u];
  return ~crc;
}

}  // namespace fathom
