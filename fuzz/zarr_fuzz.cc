// A zarr array of any content: metadata up to the first zero byte, behind it the bytes of every chunk. Either an Error, or metadata that
// survives being written, and elements that can be read, whole and in parts, with the same values.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/checkpoint/orbax/zarr.h"

namespace {

using namespace fathom;

constexpr int64_t kMostElements = 4096, kMostChunkBytes = 1 << 16;  // larger ones only take time

void Require(bool condition) {
  if (!condition) std::abort();
}

// One array "a" whose chunks all have the same bytes.
class OneArray : public KeyStore {
 public:
  OneArray(const char* metadata_key, std::string metadata, std::string chunk)
      : KeyStore("store"), metadata_key_(metadata_key), metadata_(std::move(metadata)), chunk_(std::move(chunk)) {}
  std::vector<std::string> KeysIn(const std::string&) const override { return {metadata_key_}; }
  std::optional<StoredValue> Find(const std::string& key) const override {
    if (key == metadata_key_) return StoredValue{metadata_, {}, 0, metadata_.size()};
    if (key.starts_with("a/") && !key.ends_with(kZarr3File) && !key.ends_with(kZarr2File)) return StoredValue{chunk_, {}, 0, chunk_.size()};
    return std::nullopt;
  }

 private:
  std::string metadata_key_, metadata_, chunk_;
};

std::vector<std::byte> Read(const ZarrReader& reader, const Shape& origin, const Shape& extent) {
  std::vector<std::byte> out(static_cast<size_t>(extent.NumElements() * DTypeSize(reader.array().dtype)));
  reader.Read(origin, extent, out);
  return out;
}

// All at once, and cut along the first axis.
void ReadWholeAndCut(const ZarrReader& reader) {
  const Shape& shape = reader.array().shape;
  Shape origin = shape;
  for (int a = 0; a < origin.rank(); ++a) origin[a] = 0;
  const auto whole = Read(reader, origin, shape);
  if (shape.rank() == 0) return;
  std::vector<std::byte> joined;
  for (int64_t begin = 0, step = 1; begin < shape[0]; begin += step, step = 3) {
    Shape low = origin, extent = shape;
    low[0] = begin;
    extent[0] = std::min(step, shape[0] - begin);
    const auto part = Read(reader, low, extent);
    joined.insert(joined.end(), part.begin(), part.end());
  }
  Require(joined == whole);
}

void RequireWritable(const ZarrArray& array) {
  if (array.version == 2 && array.separator != ".") return;  // not a form that is written
  const std::string once = FormatZarr(array);
  const ZarrArray again =
      array.version == 3 ? ParseZarr3(ParseJson(once, "again"), "again") : ParseZarr2(ParseJson(once, "again"), "again");
  Require(FormatZarr(again) == once && again.shape == array.shape && again.inner == array.inner && again.dtype == array.dtype);
}

void Use(const char* file, std::string_view metadata, std::string_view chunk) {
  const auto store = std::make_shared<const OneArray>(file, std::string(metadata), std::string(chunk));
  const ZarrReader reader(store, "a", std::make_shared<ChunkCache>(kMostChunkBytes, "/tmp"));
  const ZarrArray& array = reader.array();
  RequireWritable(array);
  if (array.NumElements() <= kMostElements && array.ChunkBytes() <= kMostChunkBytes) ReadWholeAndCut(reader);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(text.find('\0'), size);
  for (const char* file : {"a/zarr.json", "a/.zarray"}) {
    try {
      Use(file, text.substr(0, end), text.substr(std::min(end + 1, size)));
    } catch (const Error& e) {
      Require(e.code() == ErrorCode::kInput);
    }
  }
  return 0;
}
