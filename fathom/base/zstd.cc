#include "fathom/base/zstd.h"

#include <zstd.h>

#include <algorithm>
#include <new>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr size_t kStep = 1 << 17;

ZSTD_DCtx* AsReader(void* context) { return static_cast<ZSTD_DCtx*>(context); }

}  // namespace

void ZstdReader::Free::operator()(void* context) const { ZSTD_freeDCtx(AsReader(context)); }
void ZstdCompressor::Free::operator()(void* context) const { ZSTD_freeCCtx(static_cast<ZSTD_CCtx*>(context)); }

ZstdReader::ZstdReader(std::function<size_t(std::span<std::byte>)> next, std::string where, int window_log)
    : next_(std::move(next)), where_(std::move(where)), context_(ZSTD_createDCtx()), buffer_(kStep, '\0') {
  if (context_ == nullptr) throw std::bad_alloc();
  const size_t result = ZSTD_DCtx_setParameter(AsReader(context_.get()), ZSTD_d_windowLogMax, window_log);
  FATHOM_CHECK(!ZSTD_isError(result), "{}", ZSTD_getErrorName(result));
}

bool ZstdReader::Refill() {
  if (begin_ < end_) return true;
  begin_ = 0;
  end_ = next_(std::as_writable_bytes(std::span(buffer_)));
  return end_ > 0;
}

// What the buffered input gives; 0: more of it is needed, or a frame has ended.
size_t ZstdReader::Decompress(std::span<std::byte> out) {
  ZSTD_outBuffer to = {out.data(), out.size(), 0};
  ZSTD_inBuffer from = {buffer_.data(), end_, begin_};
  const size_t result = ZSTD_decompressStream(AsReader(context_.get()), &to, &from);
  if (ZSTD_isError(result)) Throw(ErrorCode::kInput, "{}: damaged zstd data ({})", where_, ZSTD_getErrorName(result));
  begin_ = from.pos;
  frame_open_ = result != 0;
  return to.pos;
}

size_t ZstdReader::ReadSome(std::span<std::byte> out) {
  size_t n = 0;
  while (n == 0 && Refill()) n = Decompress(out);
  if (n == 0 && frame_open_) Throw(ErrorCode::kInput, "{}: zstd data ends early: truncated", where_);
  return n;
}

void ZstdReader::Read(std::span<std::byte> out) {
  while (!out.empty()) {
    const bool more = Refill();
    const size_t n = Decompress(out);
    if (!more && n == 0) Throw(ErrorCode::kInput, "{}: zstd data ends early: truncated", where_);
    out = out.subspan(n);
  }
}

void ZstdReader::CheckEnd() {
  std::byte beyond;
  while (frame_open_ && Refill()) {
    if (Decompress({&beyond, 1}) > 0) Throw(ErrorCode::kInput, "{}: zstd data holds more than its shape says", where_);
  }
  if (frame_open_) Throw(ErrorCode::kInput, "{}: zstd data ends early: truncated", where_);
  if (Refill()) Throw(ErrorCode::kInput, "{}: bytes behind the zstd data", where_);
}

std::string ZstdDecompress(std::span<const std::byte> bytes, uint64_t max_size, const std::string& where) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(), &ZSTD_freeDCtx);
  std::string out;
  ZSTD_inBuffer from = {bytes.data(), bytes.size(), 0};
  size_t left = 1;  // of the frame, as libzstd hints; 0: complete
  while (left != 0) {
    const size_t at = out.size();
    if (at > max_size) Throw(ErrorCode::kInput, "{}: expands to more than {} bytes: damaged", where, max_size);
    out.resize(at + std::max(kStep, at));
    ZSTD_outBuffer to = {out.data(), out.size(), at};
    left = ZSTD_decompressStream(context.get(), &to, &from);
    if (ZSTD_isError(left)) Throw(ErrorCode::kInput, "{}: damaged zstd data ({})", where, ZSTD_getErrorName(left));
    const bool stuck = left != 0 && to.pos < to.size && from.pos == from.size;
    out.resize(to.pos);
    if (stuck) Throw(ErrorCode::kInput, "{}: zstd data ends early: truncated", where);
  }
  if (out.size() > max_size) Throw(ErrorCode::kInput, "{}: expands to more than {} bytes: damaged", where, max_size);
  if (from.pos != from.size) Throw(ErrorCode::kInput, "{}: bytes behind the zstd data", where);
  return out;
}

ZstdCompressor::ZstdCompressor(int level) : level_(level), context_(ZSTD_createCCtx()) {
  if (context_ == nullptr) throw std::bad_alloc();
}

void ZstdCompressor::Compress(std::span<const std::byte> bytes, std::string& out) {
  out.resize(ZSTD_compressBound(bytes.size()));
  const size_t size =
      ZSTD_compressCCtx(static_cast<ZSTD_CCtx*>(context_.get()), out.data(), out.size(), bytes.data(), bytes.size(), level_);
  FATHOM_CHECK(!ZSTD_isError(size), "{}", ZSTD_getErrorName(size));
  out.resize(size);
}

}  // namespace fathom
