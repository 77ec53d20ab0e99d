// The safetensors file format: 8 bytes of header length (little endian), a JSON header, the tensors' bytes without holes.
// https://github.com/huggingface/safetensors#format
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

inline constexpr int64_t kMaxSafetensorsHeader = 100'000'000;  // bytes; the format's own limit

// One tensor of a file; begin and end are positions in the file.
struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t begin = 0, end = 0;
  int64_t NumBytes() const { return static_cast<int64_t>(end - begin); }
};

// "F32", "BF16" ... ; nullopt for a name that is no DType.
std::optional<DType> ParseDType(std::string_view name);

// The header of a file of file_size bytes, `header` being what lies between the length and the tensors. Entries by position.
// Throws Error(kInput), naming `where`, tensor, found and expected: not JSON, a name twice, an unknown dtype, a shape that is no list of
// counts, has more than Shape::kMaxRank dimensions or overflows, offsets that differ from dtype and shape, overlap, leave a hole or end
// elsewhere than the file.
struct SafetensorsHeader {
  std::vector<TensorEntry> entries;
  std::map<std::string, std::string> metadata;
};
SafetensorsHeader ParseSafetensorsHeader(std::string_view header, uint64_t file_size, const std::string& where);

// A mapped file whose header has been checked completely. Tensors stay valid as long as they are held, with or without this object.
class SafetensorsFile {
 public:
  // Throws Error(kInput): as MappedFile::Open and ParseSafetensorsHeader; a file shorter than its header, a header above the limit.
  static std::shared_ptr<const SafetensorsFile> Open(const std::filesystem::path& path);

  const std::vector<TensorEntry>& entries() const { return header_.entries; }  // by position
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::filesystem::path& path() const { return file_->path(); }
  const MappedFile& file() const { return *file_; }
  const TensorEntry* Find(std::string_view name) const;  // nullptr: absent

  std::span<const std::byte> Bytes(const TensorEntry& entry) const;
  // Mapped; a copy only where the file puts it at an address that its dtype cannot have.
  Tensor Get(const TensorEntry& entry) const;

 private:
  SafetensorsFile(std::shared_ptr<MappedFile> file, SafetensorsHeader header);
  std::shared_ptr<MappedFile> file_;
  SafetensorsHeader header_;
  std::map<std::string_view, size_t> by_name_;
};

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  int64_t NumBytes() const { return shape.NumElements() * DTypeSize(dtype); }
};

// Writes a file whose tensors are known beforehand, in any order and from any thread. In the file the widest dtypes come first and the
// header's length is a multiple of 8, so that every tensor is aligned; within a width the given order stays.
class SafetensorsWriter {
 public:
  enum class Share {
    kWhole,   // creates the file; every byte of it is written here
    kHeader,  // creates the file in its full size, for other processes to fill
    kPart,    // such a file is there; other processes write other parts of it
  };
  // Throws Error(kResource); names must differ (FATHOM_CHECK).
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorInfo> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}}, Share share = Share::kWhole);

  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // as given
  // The whole tensor i: dtype and shape must be those announced (FATHOM_CHECK). Rows may be strided. Throws Error(kResource).
  void Write(size_t i, ConstView view);
  // The part of matrix (or vector) i that begins at this row and column, likewise.
  void WritePart(size_t i, ConstView part, int64_t row, int64_t column);
  // Some bytes of tensor i from `offset` on. Throws Error(kResource).
  void WriteBytes(size_t i, int64_t offset, std::span<const std::byte> bytes);
  // Syncs and closes. Of the whole every byte must have been written (FATHOM_CHECK on their number). Throws Error(kResource).
  void Close();

  // Size of the file for these tensors, without writing it.
  static int64_t FileSize(const std::vector<TensorInfo>& tensors, const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

 private:
  std::vector<TensorInfo> tensors_;
  std::vector<int64_t> begins_;  // positions in the file
  int64_t data_bytes_ = 0;
  std::atomic<int64_t> written_ = 0;
  Share share_;
  OutputFile file_;
};

}  // namespace fathom
