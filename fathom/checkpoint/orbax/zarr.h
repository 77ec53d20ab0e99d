// Arrays in a KeyStore: any region of one, with memory bounded whatever the chunks' size; chunks encoded for writing.
#pragma once

#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "fathom/checkpoint/orbax/key_store.h"
#include "fathom/checkpoint/orbax/zarr_metadata.h"

namespace fathom {

// Decoded chunks: small ones stay in memory up to a budget, one that is larger than its share is spilled to a file without a name in
// scratch_dir. From any thread.
class ChunkCache {
 public:
  // Throws Error(kResource) later, when a chunk must be spilled and cannot be.
  ChunkCache(int64_t budget, std::filesystem::path scratch_dir) : budget_(budget), scratch_dir_(std::move(scratch_dir)) {}
  int64_t budget() const { return budget_; }

  class Chunk;
  using Make = std::function<std::shared_ptr<Chunk>()>;
  // The chunk of this name; the first to ask makes it, others wait.
  std::shared_ptr<Chunk> Get(const std::string& name, int64_t bytes, const Make& make);
  // A place for the content of a chunk of this size.
  std::shared_ptr<Chunk> NewChunk(int64_t bytes) const;

 private:
  struct Slot {
    std::mutex mutex;
    std::shared_ptr<Chunk> chunk;
    int64_t bytes = 0;
  };
  void Trim();
  int64_t budget_;
  std::filesystem::path scratch_dir_;
  std::mutex mutex_;
  std::list<std::pair<std::string, std::shared_ptr<Slot>>> slots_;  // the latest first
};

class ZarrReader {
 public:
  // Throws Error(kInput): no such array, metadata that is damaged or not understood.
  ZarrReader(std::shared_ptr<const KeyStore> store, std::string name, std::shared_ptr<ChunkCache> cache);

  const ZarrArray& array() const { return array_; }
  const std::string& name() const { return name_; }
  // Elements [origin, origin + extent) of every axis, row-major, into out, which has exactly their bytes.
  // Throws Error(kInput) naming file and array: damaged chunk, checksum, wrong size.
  void Read(const Shape& origin, const Shape& extent, std::span<std::byte> out) const;
  // Bytes that hold the array now, compressed.
  uint64_t StoredBytes() const;
  // The files that hold its chunks.
  std::vector<std::filesystem::path> Files() const;

 private:
  struct Place {  // of one inner chunk
    StoredValue value;
    uint64_t begin = 0, length = 0;
  };
  std::string Where(const StoredValue& value) const;
  std::vector<StoredValue> Stored() const;  // its chunks
  std::optional<Place> Locate(const StoredValue& value, int64_t inner) const;
  void CheckChecksum(const Place& place, uint64_t stored, uint32_t checksum) const;
  std::shared_ptr<ChunkCache::Chunk> Decode(const Place& place) const;
  void Fill(std::span<std::byte> out) const;
  void ReadInner(const Shape& chunk_index, const Shape& inner_index, const Shape& origin, const Shape& extent,
                 std::span<std::byte> out) const;

  std::shared_ptr<const KeyStore> store_;
  std::string name_;
  std::shared_ptr<ChunkCache> cache_;
  ZarrArray array_;
};

// Names of all arrays in the store, ascending.
std::vector<std::string> ZarrArrayNames(const KeyStore& store);

// Encodes chunks (inner == chunk). Keeps its memory between calls; one per thread.
class ZarrEncoder {
 public:
  // The value to store for a chunk's elements; valid until the next call.
  std::span<const std::byte> Encode(const ZarrArray& array, std::span<const std::byte> chunk);

 private:
  std::unique_ptr<class ZstdCompressor> compressor_;
  int level_ = 0;
  std::string buffer_;

 public:
  ZarrEncoder();
  ~ZarrEncoder();
};

}  // namespace fathom
