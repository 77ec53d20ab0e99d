#include "fathom/checkpoint/orbax/zarr.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/orbax/byte_stream.h"
#include "fathom/checkpoint/orbax/ocdbt.h"
#include "fathom/checkpoint/safetensors/safetensors.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

fs::path Data(const std::string& name) { return fs::path(FATHOM_TEST_DATA) / "orbax" / name; }

std::vector<std::byte> ReadAll(const ZarrReader& reader) {
  const Shape& shape = reader.array().shape;
  Shape zero = shape;
  for (int a = 0; a < zero.rank(); ++a) zero[a] = 0;
  std::vector<std::byte> out(static_cast<size_t>(shape.NumElements() * DTypeSize(reader.array().dtype)));
  reader.Read(zero, shape, out);
  return out;
}

// Every array of a checkpoint that MaxText wrote, against the values beside it; budget 0 spills every chunk.
void ExpectSample(const std::string& name, int64_t budget) {
  const TemporaryFolder scratch;
  const std::shared_ptr<const KeyStore> store = KeyStore::Open(Data(name) / "0/items");
  const auto cache = std::make_shared<ChunkCache>(budget, scratch.path());
  const auto expected = SafetensorsFile::Open(Data("v3-scanned-params-bf16") / "expected.safetensors");
  const auto names = ZarrArrayNames(*store);
  ASSERT_EQ(names.size(), expected->entries().size());
  for (const std::string& array : names) {
    const ZarrReader reader(store, array, cache);
    const TensorEntry* entry = expected->Find(array);
    ASSERT_NE(entry, nullptr) << array;
    EXPECT_EQ(reader.array().dtype, entry->dtype) << array;
    EXPECT_EQ(reader.array().shape, entry->shape) << array;
    const auto got = ReadAll(reader);
    const auto want = expected->Bytes(*entry);
    EXPECT_TRUE(std::ranges::equal(got, want)) << array;
  }
}

TEST(Zarr, MaxTextsZarr3InOcdbt) { ExpectSample("v3-scanned-params-bf16", 1 << 20); }
TEST(Zarr, MaxTextsZarr2InOcdbt) { ExpectSample("v3-scanned-params-bf16-zarr2", 1 << 20); }
TEST(Zarr, ChunksLargerThanMemorySpill) { ExpectSample("v3-scanned-params-bf16", 0); }

// An array of our own in a folder, chunk by chunk.
struct Written {
  TemporaryFolder folder;
  ZarrArray array;
  std::vector<std::byte> values;

  Written(ZarrArray a, uint64_t seed) : array(std::move(a)) {
    const int64_t width = DTypeSize(array.dtype);
    const CounterRng rng(seed, 0);
    for (int64_t i = 0; i < array.NumElements() * width; ++i)
      values.push_back(static_cast<std::byte>(rng.Bits(static_cast<uint64_t>(i)) & 3));
    Put((array.version == 3 ? kZarr3File : kZarr2File), FormatZarr(array));
    ZarrEncoder encoder;
    Shape grid = array.shape;
    for (int i = 0; i < grid.rank(); ++i) grid[i] = array.GridSize(i);
    for (int64_t n = 0; n < grid.NumElements(); ++n) {
      Shape index = grid;
      int64_t rest = n;
      for (int i = grid.rank() - 1; i >= 0; --i) index[i] = rest % grid[i], rest /= grid[i];
      const auto chunk = Chunk(index);
      const auto bytes = encoder.Encode(array, chunk);
      Put(array.ChunkKey(index), {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    }
  }
  std::vector<std::byte> Chunk(const Shape& index) const {
    const auto width = static_cast<size_t>(DTypeSize(array.dtype));
    std::vector<std::byte> out(static_cast<size_t>(array.ChunkBytes()));
    for (int64_t n = 0; n < array.chunk.NumElements(); ++n) {
      int64_t rest = n, flat = 0, scale = 1;
      bool inside = true;
      for (int i = array.shape.rank() - 1; i >= 0; --i) {
        const int64_t at = index[i] * array.chunk[i] + rest % array.chunk[i];
        rest /= array.chunk[i];
        inside = inside && at < array.shape[i];
        flat += at * scale;
        scale *= array.shape[i];
      }
      if (inside) std::memcpy(&out[static_cast<size_t>(n) * width], &values[static_cast<size_t>(flat) * width], width);
    }
    return out;
  }
  fs::path PathOf(const std::string& key) const { return folder.path() / "items/a" / key; }
  void Put(const std::string& key, std::string_view bytes) const {
    fs::create_directories(PathOf(key).parent_path());
    std::ofstream(PathOf(key), std::ios::binary) << bytes;
  }
  ZarrReader Open(int64_t budget = 1 << 20) const {
    return ZarrReader(KeyStore::Open(folder.path() / "items"), "a", std::make_shared<ChunkCache>(budget, folder.path()));
  }
};

std::vector<std::byte> Region(const Written& w, const Shape& origin, const Shape& extent) {
  const auto width = static_cast<size_t>(DTypeSize(w.array.dtype));
  std::vector<std::byte> out;
  for (int64_t n = 0; n < extent.NumElements(); ++n) {
    int64_t rest = n, flat = 0, scale = 1;
    for (int i = extent.rank() - 1; i >= 0; --i) {
      flat += (origin[i] + rest % extent[i]) * scale;
      rest /= extent[i];
      scale *= w.array.shape[i];
    }
    out.insert(out.end(), w.values.begin() + flat * static_cast<int64_t>(width),
               w.values.begin() + (flat + 1) * static_cast<int64_t>(width));
  }
  return out;
}

TEST(Zarr, AnyRegionOfAnyGrid) {
  for (uint64_t seed = 0; seed < 120; ++seed) {
    const CounterRng rng(seed, 1);
    auto below = [&, i = uint64_t{0}](int64_t n) mutable { return static_cast<int64_t>(rng.Below(i++, static_cast<uint64_t>(n))); };
    ZarrArray array;
    array.version = seed % 4 == 0 ? 2 : 3;
    array.separator = std::string(1, array.version == 2 ? '.' : '/');
    array.sharded = array.version == 3 && seed % 2 == 0;
    array.zstd = seed % 3 != 0;
    array.dtype = std::array{DType::kF32, DType::kBF16, DType::kI32}[seed % 3];
    const auto rank = static_cast<int>(below(5));
    array.shape = Shape(std::vector<int64_t>(static_cast<size_t>(rank), 1));
    array.chunk = array.shape;
    Shape origin = array.shape, extent = array.shape;
    for (int a = 0; a < rank; ++a) {
      array.shape[a] = 1 + below(7);
      array.chunk[a] = 1 + below(array.shape[a] + 1);
      origin[a] = below(array.shape[a]);
      extent[a] = 1 + below(array.shape[a] - origin[a]);
    }
    array.inner = array.chunk;
    const Written w(array, seed);
    SCOPED_TRACE(fmt::format("seed {}: {} in chunks {}, region {} + {}", seed, array.shape.ToString(), array.chunk.ToString(),
                             origin.ToString(), extent.ToString()));
    for (const int64_t budget : {int64_t{0}, int64_t{1} << 20}) {
      const ZarrReader reader = w.Open(budget);
      EXPECT_EQ(ReadAll(reader), w.values);
      std::vector<std::byte> out(static_cast<size_t>(extent.NumElements() * DTypeSize(array.dtype)));
      reader.Read(origin, extent, out);
      EXPECT_EQ(out, Region(w, origin, extent));
    }
  }
}

ZarrArray Small(bool sharded, bool zstd) {
  ZarrArray array;
  array.shape = {6, 4};
  array.chunk = array.inner = {3, 4};
  array.sharded = sharded;
  array.zstd = zstd;
  return array;
}

std::string ErrorOf(const auto& run) {
  try {
    run();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    return e.what();
  }
  return "";
}

TEST(Zarr, AbsentChunksHoldTheFillValue) {
  const Written w(Small(true, true), 5);
  fs::remove(w.PathOf("c/1/0"));
  Json meta = Json::parse(FormatZarr(w.array));
  meta["fill_value"] = 2.5;
  w.Put(kZarr3File, meta.dump());
  const auto got = ReadAll(w.Open());
  EXPECT_TRUE(std::equal(got.begin(), got.begin() + 48, w.values.begin()));
  for (size_t i = 48; i < got.size(); i += 4) EXPECT_EQ(*reinterpret_cast<const float*>(&got[i]), 2.5f);
}

TEST(Zarr, SeveralInnerChunksInAShard) {
  ZarrArray array;
  array.shape = array.chunk = {4, 2};
  array.inner = {2, 2};
  array.sharded = true;
  Written w(Small(false, false), 1);
  w.Put(kZarr3File, FormatZarr(array));
  fs::remove_all(w.PathOf("c"));
  // The second inner chunk first, the first one absent.
  const std::vector<float> second = {5, 6, 7, 8};
  ByteWriter shard;
  shard.Text({reinterpret_cast<const char*>(second.data()), 16});
  ByteWriter index;
  for (const uint64_t x : {UINT64_MAX, UINT64_MAX, uint64_t{0}, uint64_t{16}}) index.U64(x);
  const uint32_t crc = Crc32c(index.span());
  index.U32(crc);
  w.Put("c/0/0", shard.bytes() + index.bytes());
  const auto got = ReadAll(w.Open());
  const auto* values = reinterpret_cast<const float*>(got.data());
  EXPECT_THAT(std::vector<float>(values, values + 8), testing::ElementsAre(0, 0, 0, 0, 5, 6, 7, 8));
}

TEST(Zarr, DamagedChunks) {
  for (const bool zstd : {false, true}) {
    const Written w(Small(true, zstd), 3);
    const auto read = [&] { ReadAll(w.Open()); };
    const std::string whole = ReadTextFile(w.PathOf("c/1/0"));
    std::string index = whole;
    index[whole.size() - 10] = 7;
    w.Put("c/1/0", index);
    EXPECT_THAT(ErrorOf(read), testing::AllOf(HasSubstr("checksum"), HasSubstr("c/1/0"), HasSubstr("array a")));
    w.Put("c/1/0", whole.substr(3));
    EXPECT_NE(ErrorOf(read), "");
    w.Put("c/1/0", "abc");
    EXPECT_THAT(ErrorOf(read), HasSubstr("truncated"));
  }
  const Written plain(Small(false, true), 3);
  plain.Put("c/0/0", "no zstd here");
  EXPECT_THAT(ErrorOf([&] { ReadAll(plain.Open()); }), HasSubstr("zstd"));
}

// The same array with the codec crc32c: behind every chunk its checksum, in place of the shard's index if there was one.
void AddChecksums(const Written& w, bool in_shard) {
  Json meta = Json::parse(FormatZarr(w.array));
  (in_shard ? meta["codecs"][0]["configuration"]["codecs"] : meta["codecs"]).push_back({{"name", "crc32c"}});
  w.Put(kZarr3File, meta.dump());
  for (const char* key : {"c/0/0", "c/1/0"}) {
    const std::string stored = ReadTextFile(w.PathOf(key));
    ByteWriter value;
    value.Text(std::string_view(stored).substr(0, stored.size() - (in_shard ? 20 : 0)));
    const uint32_t of_chunk = Crc32c(value.span());
    value.U32(of_chunk);
    if (in_shard) {
      ByteWriter index;
      index.U64(0);
      index.U64(value.bytes().size());
      value.Text(index.bytes());
      const uint32_t of_index = Crc32c(index.span());
      value.U32(of_index);
    }
    w.Put(key, value.bytes());
  }
}

TEST(Zarr, ChecksumsOfChunksAreChecked) {
  for (const bool sharded : {false, true}) {
    for (const bool zstd : {false, true}) {
      SCOPED_TRACE(fmt::format("sharded {} zstd {}", sharded, zstd));
      const Written w(Small(sharded, zstd), 3);
      AddChecksums(w, sharded);
      for (const int64_t budget : {int64_t{0}, int64_t{1} << 20}) EXPECT_EQ(ReadAll(w.Open(budget)), w.values);
      const std::string whole = ReadTextFile(w.PathOf("c/1/0"));
      const size_t chunk = whole.size() - (sharded ? 20 : 0);
      std::string damaged = whole;
      damaged[chunk - 1] ^= 1;  // of the checksum: the values are whole, but nothing says so
      w.Put("c/1/0", damaged);
      for (const int64_t budget : {int64_t{0}, int64_t{1} << 20})
        EXPECT_THAT(ErrorOf([&] { ReadAll(w.Open(budget)); }),
                    testing::AllOf(HasSubstr("checksum"), HasSubstr("c/1/0"), HasSubstr("array a")));
      damaged = whole;
      damaged[chunk - 7] ^= 1;  // of the chunk
      w.Put("c/1/0", damaged);
      EXPECT_NE(ErrorOf([&] { ReadAll(w.Open()); }), "");
      if (sharded) continue;
      w.Put("c/1/0", "abc");
      EXPECT_THAT(ErrorOf([&] { ReadAll(w.Open()); }), HasSubstr("truncated"));
    }
  }
}

std::string MetaError(const std::string& path, const Json& value) {
  Json meta = Json::parse(FormatZarr(Small(true, true)));
  meta[Json::json_pointer(path)] = value;
  return ErrorOf([&] { ParseZarr3(meta, "x/zarr.json"); });
}

TEST(ZarrMetadata, BadMetadataIsNamed) {
  EXPECT_EQ(MetaError("/fill_value", 0), "");
  EXPECT_THAT(MetaError("/data_type", "complex64"), HasSubstr("complex64"));
  EXPECT_THAT(MetaError("/data_type", 7), HasSubstr("data type 7"));
  EXPECT_THAT(MetaError("/shape", {4, -4}), HasSubstr("shape is [4,-4]"));
  EXPECT_THAT(MetaError("/shape", {int64_t{1} << 40, int64_t{1} << 40}), HasSubstr("overflows"));
  EXPECT_THAT(MetaError("/shape", {1, 1, 1, 1, 1, 1}), HasSubstr("at most 5"));
  EXPECT_THAT(MetaError("/shape", {6}), HasSubstr("chunks"));
  EXPECT_THAT(MetaError("/chunk_grid/configuration/chunk_shape", {0, 4}), HasSubstr("at least 1"));
  EXPECT_THAT(MetaError("/chunk_grid/name", "rectangular"), HasSubstr("rectangular"));
  EXPECT_THAT(MetaError("/codecs/0/name", "blosc"), HasSubstr("blosc"));
  EXPECT_THAT(MetaError("/codecs/0/configuration/codecs/1/name", "gzip"), HasSubstr("\"gzip\" is not understood"));
  EXPECT_THAT(MetaError("/codecs/0/configuration/codecs/0/configuration/endian", "big"), HasSubstr("endian"));
  EXPECT_THAT(MetaError("/codecs/0/configuration/chunk_shape", {2, 4}), HasSubstr("do not divide"));
  EXPECT_THAT(MetaError("/codecs/0/configuration/index_location", "middle"), HasSubstr("middle"));
  EXPECT_THAT(MetaError("/codecs", Json::array()), HasSubstr("codecs"));
  EXPECT_THAT(MetaError("/chunk_key_encoding/name", "v2"), HasSubstr("v2"));
  EXPECT_THAT(MetaError("/zarr_format", 4), HasSubstr("zarr_format is 4"));
  EXPECT_THAT(ErrorOf([] { ParseZarr3(Json::array(), "x"); }), HasSubstr("not a JSON object"));
  Json v2 = {{"zarr_format", 2}, {"shape", {2}}, {"chunks", {2}}, {"dtype", "<f4"}, {"compressor", {{"id", "blosc"}}}, {"order", "C"}};
  EXPECT_THAT(ErrorOf([&] { ParseZarr2(v2, "x"); }), HasSubstr("blosc"));
  v2["compressor"] = nullptr;
  EXPECT_EQ(ErrorOf([&] { ParseZarr2(v2, "x"); }), "");
  v2["order"] = "F";
  EXPECT_THAT(ErrorOf([&] { ParseZarr2(v2, "x"); }), HasSubstr("order"));
}

// A chunk that says it is huge allocates nothing of that size.
TEST(Zarr, HugeChunksFailWithoutMemory) {
  const Written w(Small(true, true), 3);
  Json meta = Json::parse(FormatZarr(w.array));
  const Json huge = {6, int64_t{1} << 40};
  meta["shape"] = huge;
  meta["chunk_grid"]["configuration"]["chunk_shape"] = huge;
  meta["codecs"][0]["configuration"]["chunk_shape"] = huge;
  w.Put(kZarr3File, meta.dump());
  const ZarrReader reader = w.Open();
  std::vector<std::byte> out(8);
  EXPECT_NE(ErrorOf([&] { reader.Read({0, 0}, {1, 2}, out); }), "");
}

// The index of a shard is as large as the metadata says, the shard as large as the database says: neither is believed before the file.
TEST(Zarr, ShardsThatAreLargerThanTheirFile) {
  const TemporaryFolder folder;
  ZarrArray array;
  array.shape = array.chunk = {1 << 12, 1 << 12};
  array.inner = {1, 1};
  array.sharded = true;
  fs::create_directories(folder.path() / "d");
  std::ofstream(folder.path() / "d/data") << "short";
  OcdbtWriteOptions options;
  options.tree_file = "d/tree";
  WriteOcdbtTree(folder.path(), {{"a/zarr.json", {true, FormatZarr(array)}}, {"a/c/0/0", {false, "", "d/data", 0, uint64_t{1} << 40}}},
                 options);
  const ZarrReader reader(KeyStore::Open(folder.path()), "a", std::make_shared<ChunkCache>(1 << 20, folder.path()));
  std::vector<std::byte> out(4);
  EXPECT_THAT(ErrorOf([&] { reader.Read({0, 0}, {1, 1}, out); }), HasSubstr("has 5 bytes, a value lies at 0 + 1099511627776"));
}

TEST(Zarr, ThreadsShareChunks) {
  const Written w(Small(true, true), 9);
  const ZarrReader reader = w.Open(100);
  std::atomic<int> wrong = 0;
  ParallelJobs(64, [&](int64_t) { wrong += ReadAll(reader) != w.values; });
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace fathom
