// Zstandard frames (RFC 8878) through libzstd.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace fathom {

// The whole content of the frames in `bytes`, at most max_size bytes. Grows with what is really there, not with what a header says.
// Throws Error(kInput) naming where: not zstd, truncated, larger than max_size.
std::string ZstdDecompress(std::span<const std::byte> bytes, uint64_t max_size, const std::string& where);

// Compressed input is asked for piece by piece, content is given out piece by piece: memory does not grow with either.
class ZstdReader {
 public:
  // next(buffer) fills the buffer with following input bytes and returns how many (0: the end).
  ZstdReader(std::function<size_t(std::span<std::byte>)> next, std::string where);
  // Fills out completely. Throws Error(kInput): damaged, or the content ends before.
  void Read(std::span<std::byte> out);
  // Throws Error(kInput) unless the content and its frame end here.
  void CheckEnd();

 private:
  bool Refill();
  struct Free {
    void operator()(void* context) const;
  };
  std::function<size_t(std::span<std::byte>)> next_;
  std::string where_;
  std::unique_ptr<void, Free> context_;
  std::string buffer_;
  size_t begin_ = 0, end_ = 0;
  bool frame_open_ = true;
};

// One frame. The context keeps its memory between calls; use one per thread.
class ZstdCompressor {
 public:
  explicit ZstdCompressor(int level);
  // Replaces out.
  void Compress(std::span<const std::byte> bytes, std::string& out);

 private:
  struct Free {
    void operator()(void* context) const;
  };
  int level_;
  std::unique_ptr<void, Free> context_;
};

}  // namespace fathom
