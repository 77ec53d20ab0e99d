#include "fathom/parquet/codec.h"

#include <zlib.h>

#include <algorithm>
#include <span>

#include "fathom/base/error.h"
#include "fathom/base/zstd.h"
#include "fathom/parquet/levels.h"

namespace fathom {
namespace {

constexpr size_t kGrowth = 1 << 20;

// A copy of `length` bytes from `distance` before the end, which may reach into itself.
bool CopyBack(uint64_t distance, uint64_t length, uint64_t size, std::string* out) {
  if (distance == 0 || distance > out->size() || length > size - out->size()) return false;
  for (uint64_t i = 0; i < length; ++i) out->push_back((*out)[out->size() - distance]);
  return true;
}

// A little-endian number of n bytes at *at.
bool ReadNumber(std::string_view bytes, size_t* at, size_t n, uint64_t* value) {
  if (n > bytes.size() - *at) return false;
  *value = 0;
  for (size_t i = 0; i < n; ++i) *value |= uint64_t{static_cast<uint8_t>(bytes[*at + i])} << (8 * i);
  *at += n;
  return true;
}

// tag: of a literal. Lengths above 60 stand in up to four bytes behind it.
bool CopyLiteral(std::string_view stored, uint8_t tag, size_t* at, uint64_t size, std::string* out) {
  uint64_t length = tag >> 2;
  if (length >= 60 && !ReadNumber(stored, at, length - 59, &length)) return false;
  ++length;
  if (length > stored.size() - *at || length > size - out->size()) return false;
  out->append(stored.substr(*at, length));
  *at += length;
  return true;
}

struct Inflate {
  z_stream stream = {};
  ~Inflate() { inflateEnd(&stream); }
};

// gzip or zlib, by what it begins with; several members one after the other.
std::string Gunzip(std::string_view stored, size_t bytes, const std::string& where) {
  Inflate inflate;
  z_stream& s = inflate.stream;
  const auto fail = [&] { Throw(ErrorCode::kInput, "{}: damaged gzip data", where); };
  if (inflateInit2(&s, 15 + 32) != Z_OK) fail();
  s.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(stored.data()));  // zlib reads only
  s.avail_in = static_cast<uInt>(stored.size());
  std::string out;
  while (out.size() < bytes) {
    const size_t before = out.size();
    out.resize(std::min(bytes, before + kGrowth));
    s.next_out = reinterpret_cast<Bytef*>(out.data() + before);
    s.avail_out = static_cast<uInt>(out.size() - before);
    const int code = ::inflate(&s, Z_NO_FLUSH);
    const size_t made = out.size() - before - s.avail_out;
    out.resize(before + made);
    if (code == Z_STREAM_END && s.avail_in > 0 && inflateReset(&s) == Z_OK) continue;
    if (code != Z_OK || made == 0) break;
  }
  return out;
}

}  // namespace

bool SnappyDecompress(std::string_view stored, std::string* out) {
  size_t at = 0;
  uint64_t size = 0;
  out->clear();
  // Three bytes stand for at most 64.
  if (!ReadVarInt(stored, &at, &size) || size / 22 > stored.size()) return false;
  out->reserve(size);
  while (at < stored.size()) {
    const auto tag = static_cast<uint8_t>(stored[at++]);
    uint64_t distance = 0;
    bool sound = true;
    if ((tag & 3) == 0) {
      sound = CopyLiteral(stored, tag, &at, size, out);
    } else if ((tag & 3) == 1) {
      const uint64_t high = tag >> 5;
      sound = ReadNumber(stored, &at, 1, &distance) && CopyBack(distance | high << 8, 4 + (tag >> 2 & 7), size, out);
    } else {
      sound = ReadNumber(stored, &at, (tag & 3) == 2 ? 2 : 4, &distance) && CopyBack(distance, 1 + (tag >> 2), size, out);
    }
    if (!sound) return false;
  }
  return out->size() == size;
}

std::string DecompressPage(ParquetCodec codec, std::string_view stored, int64_t bytes, const std::string& where) {
  std::string out;
  if (codec == ParquetCodec::kNone) {
    out = stored;
  } else if (codec == ParquetCodec::kSnappy) {
    if (!SnappyDecompress(stored, &out)) Throw(ErrorCode::kInput, "{}: damaged Snappy data", where);
  } else if (codec == ParquetCodec::kGzip) {
    out = Gunzip(stored, static_cast<size_t>(bytes), where);
  } else if (codec == ParquetCodec::kZstd) {
    out = ZstdDecompress(std::as_bytes(std::span(stored.data(), stored.size())), static_cast<uint64_t>(bytes), where);
  } else {
    Throw(ErrorCode::kInput, "{}: compressed with LZO, Brotli or LZ4, which are not read; write it with Snappy, zstd or gzip", where);
  }
  if (static_cast<int64_t>(out.size()) != bytes)
    Throw(ErrorCode::kInput, "{}: a page of {} bytes, said to be {}", where, out.size(), bytes);
  return out;
}

}  // namespace fathom
