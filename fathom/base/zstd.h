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
  // next(buffer) fills the buffer with following input bytes and returns how many (0: the end). A frame whose window is larger than
  // 2^window_log bytes is refused, for that much memory is what reading it takes.
  ZstdReader(std::function<size_t(std::span<std::byte>)> next, std::string where, int window_log = 27);
  // Up to out.size() bytes of the frames' content, at least one; 0 at the end of the last frame. Throws Error(kInput): damaged, truncated.
  size_t ReadSome(std::span<std::byte> out);
  // Fills out completely. Throws Error(kInput): damaged, or the content ends before.
  void Read(std::span<std::byte> out);
  // Throws Error(kInput) unless the content and its frame end here.
  void CheckEnd();

 private:
  bool Refill();
  size_t Decompress(std::span<std::byte> out);
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
