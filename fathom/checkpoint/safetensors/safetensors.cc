#include "fathom/checkpoint/safetensors/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/json.h"

namespace fathom {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors holds little-endian numbers");

constexpr uint64_t kPrefix = 8;
constexpr int64_t kWritebackBytes = 1 << 20;  // from here on the disk starts at once, and Close has little left to wait for
constexpr std::array kDTypes = {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E8M0, DType::kF64, DType::kI64,
                                DType::kI32, DType::kU32,  DType::kI16, DType::kI8,     DType::kU8,     DType::kBool};

// Text from a file as one printable line of bounded length.
std::string Quoted(const Json& value) {
  std::string text = value.dump(-1, ' ', true);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

struct EntryParser {
  const std::string& where;
  const std::string& name;
  uint64_t data_begin, file_size;

  [[noreturn]] void Fail(const std::string& what) const { Throw(ErrorCode::kInput, "{}: tensor {}: {}", where, Quoted(name), what); }

  const Json& Field(const Json& entry, const char* key) const {
    const auto it = entry.find(key);
    if (it == entry.end()) Fail(fmt::format("no {} in the header", key));
    return *it;
  }

  DType ReadDType(const Json& value) const {
    const auto dtype = value.is_string() ? ParseDType(value.get_ref<const std::string&>()) : std::nullopt;
    if (!dtype) Fail(fmt::format("dtype {} is not known", Quoted(value)));
    return *dtype;
  }

  // Also sets bytes = elements * DTypeSize.
  Shape ReadShape(const Json& value, DType dtype, int64_t& bytes) const {
    if (!value.is_array()) Fail(fmt::format("shape {} is not a list", Quoted(value)));
    if (value.size() > Shape::kMaxRank) Fail(fmt::format("shape {} has more than {} dimensions", Quoted(value), Shape::kMaxRank));
    std::vector<int64_t> dims;
    bytes = DTypeSize(dtype);
    bool overflow = false;
    for (const Json& dim : value) {
      if (!dim.is_number_unsigned() || dim.get<uint64_t>() > INT64_MAX)
        Fail(fmt::format("shape {} is not a list of counts", Quoted(value)));
      dims.push_back(dim.get<int64_t>());
      overflow |= __builtin_mul_overflow(bytes, dims.back(), &bytes);
    }
    if (overflow) Fail(fmt::format("shape {} overflows 64 bits", Quoted(value)));
    return Shape(dims);
  }

  void ReadOffsets(const Json& value, TensorEntry& entry) const {
    if (!value.is_array() || value.size() != 2 || !value[0].is_number_unsigned() || !value[1].is_number_unsigned()) {
      Fail(fmt::format("data_offsets {} are not two positions", Quoted(value)));
    }
    const uint64_t begin = value[0].get<uint64_t>(), end = value[1].get<uint64_t>(), available = file_size - data_begin;
    if (begin > end) Fail(fmt::format("data_offsets {} are reversed", Quoted(value)));
    if (end > available)
      Fail(fmt::format("data_offsets {} reach beyond the {} bytes of data in the file (truncated?)", Quoted(value), available));
    entry.begin = data_begin + begin;
    entry.end = data_begin + end;
  }

  TensorEntry Read(const Json& value) const {
    if (!value.is_object()) Fail("its header entry is not an object");
    TensorEntry entry;
    entry.name = name;
    entry.dtype = ReadDType(Field(value, "dtype"));
    int64_t bytes = 0;
    entry.shape = ReadShape(Field(value, "shape"), entry.dtype, bytes);
    ReadOffsets(Field(value, "data_offsets"), entry);
    if (entry.NumBytes() != bytes) {
      Fail(fmt::format("data_offsets give it {} bytes, {} {} needs {}", entry.NumBytes(), DTypeName(entry.dtype), entry.shape.ToString(),
                       bytes));
    }
    if (value.size() != 3) Fail(fmt::format("its header entry {} has fields that are not known", Quoted(value)));
    return entry;
  }
};

std::map<std::string, std::string> ReadMetadata(const Json& value, const std::string& where) {
  std::map<std::string, std::string> metadata;
  if (!value.is_object()) Throw(ErrorCode::kInput, "{}: __metadata__ is not an object", where);
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) Throw(ErrorCode::kInput, "{}: __metadata__ {} is not a string", where, Quoted(key));
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

// Entries sorted by position must follow each other without overlap or hole, to the end of the file.
void CheckLayout(const std::vector<TensorEntry>& entries, uint64_t data_begin, uint64_t file_size, const std::string& where) {
  uint64_t position = data_begin;
  const std::string* previous = nullptr;
  for (const TensorEntry& entry : entries) {
    if (entry.begin < position) Throw(ErrorCode::kInput, "{}: tensors {} and {} overlap", where, Quoted(*previous), Quoted(entry.name));
    if (entry.begin > position) {
      Throw(ErrorCode::kInput, "{}: {} bytes before tensor {} belong to no tensor", where, entry.begin - position, Quoted(entry.name));
    }
    position = entry.end;
    previous = &entry.name;
  }
  if (position != file_size) Throw(ErrorCode::kInput, "{}: the header describes {} bytes, the file has {}", where, position, file_size);
}

// Order in the file: tensors with wide elements first.
std::vector<size_t> FileOrder(const std::vector<TensorInfo>& tensors) {
  std::vector<size_t> order(tensors.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, std::greater(), [&](size_t i) { return DTypeSize(tensors[i].dtype); });
  return order;
}

std::string WriteHeader(const std::vector<TensorInfo>& tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t position = 0;
  for (const size_t i : FileOrder(tensors)) {
    const TensorInfo& tensor = tensors[i];
    const auto dims = tensor.shape.dims();
    const int64_t end = position + tensor.NumBytes();
    header[tensor.name] = {
        {"dtype", DTypeName(tensor.dtype)}, {"shape", std::vector<int64_t>(dims.begin(), dims.end())}, {"data_offsets", {position, end}}};
    position = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  text.insert(0, reinterpret_cast<const char*>(&length), sizeof(length));
  return text;
}

}  // namespace

std::optional<DType> ParseDType(std::string_view name) {
  const auto it = std::ranges::find(kDTypes, name, DTypeName);
  return it == kDTypes.end() ? std::nullopt : std::optional(*it);
}

SafetensorsHeader ParseSafetensorsHeader(std::string_view header, uint64_t file_size, const std::string& where) {
  const Json json = ParseJson(header, where + ": header", 8);
  if (!json.is_object()) Throw(ErrorCode::kInput, "{}: header: not a JSON object", where);
  const uint64_t data_begin = kPrefix + header.size();
  FATHOM_CHECK(data_begin <= file_size);
  SafetensorsHeader result;
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      result.metadata = ReadMetadata(value, where);
    } else {
      result.entries.push_back(EntryParser{where, name, data_begin, file_size}.Read(value));
    }
  }
  std::ranges::sort(result.entries, {}, [](const TensorEntry& e) { return std::pair(e.begin, e.end); });
  CheckLayout(result.entries, data_begin, file_size, where);
  return result;
}

SafetensorsFile::SafetensorsFile(std::shared_ptr<MappedFile> file, SafetensorsHeader header)
    : file_(std::move(file)), header_(std::move(header)) {
  for (size_t i = 0; i < header_.entries.size(); ++i) by_name_[header_.entries[i].name] = i;
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::Open(const std::filesystem::path& path) {
  auto file = MappedFile::Open(path);
  const auto bytes = file->bytes();
  const std::string where = path.string();
  uint64_t length = 0;
  if (bytes.size() < kPrefix) Throw(ErrorCode::kInput, "{}: {} bytes, too short for a safetensors file", where, bytes.size());
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > kMaxSafetensorsHeader) {
    Throw(ErrorCode::kInput, "{}: a header of {} bytes is announced, at most {} are allowed: not a safetensors file", where, length,
          kMaxSafetensorsHeader);
  }
  if (length > bytes.size() - kPrefix) {
    Throw(ErrorCode::kInput, "{}: a header of {} bytes is announced, only {} follow: the file is truncated", where, length,
          bytes.size() - kPrefix);
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + kPrefix, length);
  auto parsed = ParseSafetensorsHeader(header, bytes.size(), where);
  return std::shared_ptr<const SafetensorsFile>(new SafetensorsFile(std::move(file), std::move(parsed)));
}

const TensorEntry* SafetensorsFile::Find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &header_.entries[it->second];
}

std::span<const std::byte> SafetensorsFile::Bytes(const TensorEntry& entry) const {
  return file_->bytes().subspan(entry.begin, entry.end - entry.begin);
}

Tensor SafetensorsFile::Get(const TensorEntry& entry) const {
  const auto bytes = Bytes(entry);
  if (reinterpret_cast<uintptr_t>(bytes.data()) % static_cast<uintptr_t>(DTypeSize(entry.dtype)) == 0) {
    return Tensor(file_, ConstView(bytes.data(), entry.dtype, entry.shape));
  }
  Tensor copy(entry.dtype, entry.shape);
  std::memcpy(copy.mutable_view().raw(), bytes.data(), bytes.size());
  return copy;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorInfo> tensors,
                                     const std::map<std::string, std::string>& metadata, Share share)
    : tensors_(std::move(tensors)),
      begins_(tensors_.size()),
      share_(share),
      file_(path, share == Share::kPart ? OutputFile::Mode::kExisting : OutputFile::Mode::kCreate) {
  const std::string header = WriteHeader(tensors_, metadata);
  auto position = static_cast<int64_t>(header.size());
  for (const size_t i : FileOrder(tensors_)) {
    begins_[i] = position;
    position += tensors_[i].NumBytes();
  }
  data_bytes_ = position - static_cast<int64_t>(header.size());
  if (share != Share::kPart) file_.Write(header);
  if (share == Share::kHeader) file_.Extend(static_cast<uint64_t>(position));
}

void SafetensorsWriter::WritePart(size_t i, ConstView part, int64_t row, int64_t column) {
  const TensorInfo& whole = tensors_[i];
  const int64_t width = whole.shape.rank() == 2 ? whole.shape[1] : 1, columns = part.rank() == 2 ? part.dim(1) : 1;
  const int64_t size = DTypeSize(whole.dtype), first = (row * width + column) * size;
  FATHOM_CHECK(part.dtype() == whole.dtype && whole.shape.rank() <= 2 && row + part.dim(0) <= whole.shape[0] && column + columns <= width,
               "{}: {} at {}, {} of {}", whole.name, part.shape().ToString(), row, column, whole.shape.ToString());
  if (columns == width && part.contiguous()) return WriteBytes(i, first, {part.raw(), static_cast<size_t>(part.NumBytes())});
  for (int64_t r = 0; r < part.dim(0); ++r)
    WriteBytes(i, first + r * width * size, {part.Rows(r, r + 1).raw(), static_cast<size_t>(columns * size)});
}

void SafetensorsWriter::Write(size_t i, ConstView view) {
  FATHOM_CHECK(i < tensors_.size() && view.dtype() == tensors_[i].dtype && view.shape() == tensors_[i].shape, "tensor {} of {}", i,
               tensors_.size());
  if (view.NumElements() == 0) return;
  if (view.contiguous()) return WriteBytes(i, 0, {view.raw(), static_cast<size_t>(view.NumBytes())});
  const int64_t row_bytes = view.NumBytes() / view.dim(0);
  for (int64_t r = 0; r < view.dim(0); ++r) WriteBytes(i, r * row_bytes, {view.Rows(r, r + 1).raw(), static_cast<size_t>(row_bytes)});
}

void SafetensorsWriter::WriteBytes(size_t i, int64_t offset, std::span<const std::byte> bytes) {
  const auto size = static_cast<int64_t>(bytes.size());
  FATHOM_CHECK(i < tensors_.size() && 0 <= offset && offset + size <= tensors_[i].NumBytes(), "tensor {}, bytes {}..{}", i, offset,
               offset + size);
  file_.WriteAt(static_cast<uint64_t>(begins_[i] + offset), bytes);
  if (size >= kWritebackBytes) file_.StartWriteback(static_cast<uint64_t>(begins_[i] + offset), bytes.size());
  written_ += size;
}

void SafetensorsWriter::Close() {
  FATHOM_CHECK(share_ != Share::kWhole || written_ == data_bytes_, "{} of {} bytes written", written_.load(), data_bytes_);
  file_.Close();
}

int64_t SafetensorsWriter::FileSize(const std::vector<TensorInfo>& tensors, const std::map<std::string, std::string>& metadata) {
  int64_t size = static_cast<int64_t>(WriteHeader(tensors, metadata).size());
  for (const TensorInfo& tensor : tensors) size += tensor.NumBytes();
  return size;
}

}  // namespace fathom
