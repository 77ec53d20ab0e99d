#include "fathom/checkpoint/orbax/zarr.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/zstd.h"
#include "fathom/checkpoint/orbax/byte_stream.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMaxMetadata = 1 << 24;
constexpr int64_t kSpillStep = 8 << 20;
constexpr int64_t kMaxInnerChunks = 1 << 24;
constexpr uint64_t kChecksumBytes = 4;

// Unravel's inverse.
int64_t Ravel(const Shape& index, const Shape& grid) {
  int64_t i = 0;
  for (int a = 0; a < grid.rank(); ++a) i = i * grid[a] + index[a];
  return i;
}

// f(cell) for every cell of the box [low, high).
template <class F>
void ForCells(const Shape& low, const Shape& high, const F& f) {
  Shape size = low;
  for (int a = 0; a < low.rank(); ++a) size[a] = high[a] - low[a];
  for (int64_t i = 0, n = size.NumElements(); i < n; ++i) {
    Shape cell = Unravel(i, size);
    for (int a = 0; a < low.rank(); ++a) cell[a] += low[a];
    f(cell);
  }
}

}  // namespace

// Content of a decoded chunk: in memory, or spilled.
class ChunkCache::Chunk {
 public:
  explicit Chunk(int64_t bytes) : memory_(static_cast<size_t>(bytes), std::byte{0}) {}
  explicit Chunk(const fs::path& folder) : file_(std::in_place, folder) {}

  std::span<std::byte> memory() { return memory_; }
  bool spilled() const { return file_.has_value(); }
  void Write(int64_t offset, std::span<const std::byte> bytes) { file_->WriteAt(static_cast<uint64_t>(offset), bytes); }
  void Read(int64_t offset, std::span<std::byte> out) const {
    if (spilled()) return file_->ReadAt(static_cast<uint64_t>(offset), out);
    std::memcpy(out.data(), memory_.data() + offset, out.size());
  }

 private:
  std::vector<std::byte> memory_;
  std::optional<ScratchFile> file_;
};

std::shared_ptr<ChunkCache::Chunk> ChunkCache::NewChunk(int64_t bytes) const {
  if (bytes <= budget_ / 4) return std::make_shared<Chunk>(bytes);
  return std::make_shared<Chunk>(scratch_dir_);
}

std::shared_ptr<ChunkCache::Chunk> ChunkCache::Get(const std::string& name, int64_t bytes, const Make& make) {
  std::shared_ptr<Slot> slot;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = std::ranges::find(slots_, name, [](const auto& entry) -> const std::string& { return entry.first; });
    if (found != slots_.end()) {
      slots_.splice(slots_.begin(), slots_, found);
    } else {
      slots_.emplace_front(name, std::make_shared<Slot>());
      slots_.front().second->bytes = bytes;
    }
    slot = slots_.front().second;
    Trim();
  }
  const std::scoped_lock lock(slot->mutex);
  if (slot->chunk == nullptr) slot->chunk = make();
  return slot->chunk;
}

// Spilled chunks count as a little memory, so that few of them pile up on disk.
void ChunkCache::Trim() {
  int64_t total = 0;
  for (auto it = slots_.begin(); it != slots_.end();) {
    total += std::min(it->second->bytes, budget_ / 4);
    it = total > budget_ && it != slots_.begin() ? slots_.erase(it) : std::next(it);
  }
}

ZarrReader::ZarrReader(std::shared_ptr<const KeyStore> store, std::string name, std::shared_ptr<ChunkCache> cache)
    : store_(std::move(store)), name_(std::move(name)), cache_(std::move(cache)) {
  const std::string where = (store_->root() / name_).string();
  if (const auto v3 = store_->Find(name_ + "/" + kZarr3File)) {
    array_ = ParseZarr3(ParseJson(store_->Read(*v3, kMaxMetadata), where + "/" + kZarr3File), where);
  } else if (const auto v2 = store_->Find(name_ + "/" + kZarr2File)) {
    array_ = ParseZarr2(ParseJson(store_->Read(*v2, kMaxMetadata), where + "/" + kZarr2File), where);
  } else {
    Throw(ErrorCode::kInput, "{}: no such array in the checkpoint", where);
  }
}

std::string ZarrReader::Where(const StoredValue& value) const {
  return fmt::format("{}: array {}", (value.file.empty() ? store_->root() : value.file).string(), name_);
}

void ZarrReader::Fill(std::span<std::byte> out) const {
  const auto width = static_cast<size_t>(DTypeSize(array_.dtype));
  for (size_t i = 0; i < out.size(); i += width) std::memcpy(out.data() + i, array_.fill.data(), width);
}

// Where inner chunk number `inner` lies in a stored chunk; nullopt: absent, all fill value.
std::optional<ZarrReader::Place> ZarrReader::Locate(const StoredValue& value, int64_t inner) const {
  if (!array_.sharded) return Place{value, 0, value.length};
  const int64_t n = array_.InnerGrid().NumElements();
  const uint64_t index_bytes = 16 * static_cast<uint64_t>(n) + (array_.index_checksum ? kChecksumBytes : 0);
  if (n > kMaxInnerChunks || value.length < index_bytes)
    Throw(ErrorCode::kInput, "{}: a stored chunk of {} bytes is shorter than its index: truncated", Where(value), value.length);
  store_->RequireWhole(value);
  std::vector<std::byte> index(static_cast<size_t>(index_bytes));
  store_->ReadAt(value, array_.index_at_end ? value.length - index_bytes : 0, index);
  const auto entries = std::span(index).first(16 * static_cast<size_t>(n));
  if (array_.index_checksum && ByteReader(std::span(index).last(kChecksumBytes), "").U32() != Crc32c(entries))
    Throw(ErrorCode::kInput, "{}: checksum of a chunk's index does not match: damaged", Where(value));
  ByteReader entry(entries.subspan(16 * static_cast<size_t>(inner), 16), Where(value));
  const uint64_t begin = entry.U64(), length = entry.U64();
  if (begin == UINT64_MAX && length == UINT64_MAX) return std::nullopt;
  const uint64_t low = array_.index_at_end ? 0 : index_bytes, high = array_.index_at_end ? value.length - index_bytes : value.length;
  if (begin < low || begin > high || length > high - begin)
    Throw(ErrorCode::kInput, "{}: a chunk lies outside its shard: damaged", Where(value));
  return Place{value, begin, length};
}

// The last bytes of a stored chunk against the checksum of those before.
void ZarrReader::CheckChecksum(const Place& place, uint64_t stored, uint32_t checksum) const {
  std::array<std::byte, kChecksumBytes> bytes;
  store_->ReadAt(place.value, place.begin + stored, bytes);
  if (ByteReader(bytes, "").U32() != checksum)
    Throw(ErrorCode::kInput, "{}: checksum of a chunk does not match: damaged", Where(place.value));
}

std::shared_ptr<ChunkCache::Chunk> ZarrReader::Decode(const Place& place) const {
  const std::string where = Where(place.value);
  const int64_t bytes = array_.ChunkBytes();
  if (array_.checksum && place.length < kChecksumBytes)
    Throw(ErrorCode::kInput, "{}: a chunk is shorter than its checksum: truncated", where);
  const uint64_t stored = place.length - (array_.checksum ? kChecksumBytes : 0);
  if (!array_.zstd && stored != static_cast<uint64_t>(bytes))
    Throw(ErrorCode::kInput, "{}: a chunk has {} bytes, its shape needs {}", where, stored, bytes);
  uint64_t at = place.begin;
  uint32_t checksum = 0;
  const auto next = [&](std::span<std::byte> out) {
    const auto n = static_cast<size_t>(std::min<uint64_t>(out.size(), place.begin + stored - at));
    store_->ReadAt(place.value, at, out.first(n));
    if (array_.checksum) checksum = Crc32c(out.first(n), checksum);
    at += n;
    return n;
  };
  ZstdReader zstd(next, where);
  const auto read = [&](std::span<std::byte> out) { array_.zstd ? zstd.Read(out) : static_cast<void>(next(out)); };
  const auto chunk = cache_->NewChunk(bytes);
  std::vector<std::byte> step(chunk->spilled() ? static_cast<size_t>(std::min(kSpillStep, bytes)) : 0);
  if (!chunk->spilled()) read(chunk->memory());
  for (int64_t done = 0; chunk->spilled() && done < bytes; done += std::ssize(step)) {
    const auto part = std::span(step).first(static_cast<size_t>(std::min<int64_t>(std::ssize(step), bytes - done)));
    read(part);
    chunk->Write(done, part);
  }
  if (array_.zstd) zstd.CheckEnd();
  if (array_.checksum) CheckChecksum(place, stored, checksum);
  return chunk;
}

// Copies the part of one inner chunk that lies in the wanted region; fill values if the chunk is absent.
void ZarrReader::ReadInner(const Shape& chunk_index, const Shape& inner_index, const Shape& origin, const Shape& extent,
                           std::span<std::byte> out) const {
  const int rank = array_.shape.rank();
  const int64_t width = DTypeSize(array_.dtype);
  Shape low = origin, high = origin, begin = origin;  // the part, in the array; the chunk's first element
  for (int a = 0; a < rank; ++a) {
    begin[a] = chunk_index[a] * array_.chunk[a] + inner_index[a] * array_.inner[a];
    low[a] = std::max(origin[a], begin[a]);
    high[a] = std::min(origin[a] + extent[a], begin[a] + array_.inner[a]);
    if (low[a] >= high[a]) return;
  }
  const auto value = store_->Find(name_ + "/" + array_.ChunkKey(chunk_index));
  const int64_t inner = Ravel(inner_index, array_.InnerGrid());
  const auto place = value ? Locate(*value, inner) : std::nullopt;
  const bool direct = place && !array_.zstd && !array_.checksum;
  std::shared_ptr<ChunkCache::Chunk> chunk;
  if (direct && place->length != static_cast<uint64_t>(array_.ChunkBytes()))
    Throw(ErrorCode::kInput, "{}: a chunk has {} bytes, its shape needs {}", Where(*value), place->length, array_.ChunkBytes());
  if (place && !direct)
    chunk = cache_->Get(fmt::format("{}/{}#{}", name_, array_.ChunkKey(chunk_index), inner), array_.ChunkBytes(),
                        [&] { return Decode(*place); });
  // Runs: the innermost axes that are wanted whole are copied at once.
  int first = rank;  // axes [first, rank) are whole in chunk and region
  int64_t run = 1;
  while (first > 0 && high[first - 1] - low[first - 1] == array_.inner[first - 1] && extent[first - 1] == array_.inner[first - 1])
    run *= extent[--first];
  if (first > 0) run *= high[first - 1] - low[first - 1];
  Shape end = high;
  for (int a = std::max(first - 1, 0); a < rank; ++a) end[a] = low[a] + 1;
  ForCells(low, end, [&](const Shape& cell) {
    Shape from = cell, to = cell;
    for (int a = 0; a < rank; ++a) {
      from[a] -= begin[a];
      to[a] -= origin[a];
    }
    const auto target = out.subspan(static_cast<size_t>(Ravel(to, extent) * width), static_cast<size_t>(run * width));
    if (!place) return Fill(target);
    const int64_t source = Ravel(from, array_.inner) * width;
    chunk ? chunk->Read(source, target) : store_->ReadAt(*value, place->begin + static_cast<uint64_t>(source), target);
  });
}

void ZarrReader::Read(const Shape& origin, const Shape& extent, std::span<std::byte> out) const {
  const int rank = array_.shape.rank();
  FATHOM_CHECK(origin.rank() == rank && extent.rank() == rank && std::ssize(out) == extent.NumElements() * DTypeSize(array_.dtype),
               "{} of {}", extent.ToString(), array_.shape.ToString());
  for (int a = 0; a < rank; ++a)
    FATHOM_CHECK(origin[a] >= 0 && extent[a] >= 0 && origin[a] + extent[a] <= array_.shape[a], "{} + {} of {}", origin.ToString(),
                 extent.ToString(), array_.shape.ToString());
  if (out.empty()) return;
  Shape low = origin, high = origin, zero = origin;
  for (int a = 0; a < rank; ++a) {
    low[a] = origin[a] / array_.chunk[a];
    high[a] = (origin[a] + extent[a] - 1) / array_.chunk[a] + 1;
    zero[a] = 0;
  }
  ForCells(low, high, [&](const Shape& chunk) {
    Shape first = zero, last = zero;
    for (int a = 0; a < rank; ++a) {
      const int64_t base = chunk[a] * array_.chunk[a];
      first[a] = std::max<int64_t>(0, origin[a] - base) / array_.inner[a];
      last[a] = (std::min(origin[a] + extent[a] - base, array_.chunk[a]) - 1) / array_.inner[a] + 1;
    }
    ForCells(first, last, [&](const Shape& inner) { ReadInner(chunk, inner, origin, extent, out); });
  });
}

// By the keys that are there: the grid may be of any size.
std::vector<StoredValue> ZarrReader::Stored() const {
  std::vector<StoredValue> values;
  for (const std::string& key : store_->KeysIn(name_)) {
    const std::string_view below = std::string_view(key).substr(name_.size() + 1);
    if (below != kZarr3File && !below.starts_with(".z")) values.push_back(*store_->Find(key));
  }
  return values;
}

uint64_t ZarrReader::StoredBytes() const {
  uint64_t total = 0;
  for (const StoredValue& value : Stored()) total += value.length;
  return total;
}

std::vector<fs::path> ZarrReader::Files() const {
  std::set<fs::path> files;
  for (const StoredValue& value : Stored()) {
    if (!value.file.empty()) files.insert(value.file);
  }
  return {files.begin(), files.end()};
}

std::vector<std::string> ZarrArrayNames(const KeyStore& store) {
  std::set<std::string> names;
  for (const std::string& key : store.Keys()) {
    for (const char* file : {kZarr3File, kZarr2File}) {
      const std::string ending = std::string("/") + file;
      if (key.ends_with(ending)) names.insert(key.substr(0, key.size() - ending.size()));
    }
  }
  return {names.begin(), names.end()};
}

ZarrEncoder::ZarrEncoder() = default;
ZarrEncoder::~ZarrEncoder() = default;

std::span<const std::byte> ZarrEncoder::Encode(const ZarrArray& array, std::span<const std::byte> chunk) {
  FATHOM_CHECK(array.inner == array.chunk && std::ssize(chunk) == array.ChunkBytes() && !array.checksum, "{} bytes for {}", chunk.size(),
               array.chunk.ToString());
  if (!array.zstd && !array.sharded) return chunk;
  if (array.zstd) {
    if (compressor_ == nullptr || level_ != array.zstd_level) compressor_ = std::make_unique<ZstdCompressor>(array.zstd_level);
    level_ = array.zstd_level;
    compressor_->Compress(chunk, buffer_);
  } else {
    buffer_.assign(reinterpret_cast<const char*>(chunk.data()), chunk.size());
  }
  if (array.sharded) {
    ByteWriter index;
    index.U64(0);
    index.U64(buffer_.size());
    const uint32_t checksum = Crc32c(index.span());
    index.U32(checksum);
    buffer_ += index.bytes();
  }
  return std::as_bytes(std::span(buffer_));
}

}  // namespace fathom
