#include "fathom/checkpoint/orbax/zarr_metadata.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "fathom/base/error.h"

namespace fathom {
namespace {

struct TypeName {
  DType dtype;
  const char* v3;
  const char* v2;
};
constexpr TypeName kTypes[] = {
    {DType::kF32, "float32", "<f4"}, {DType::kBF16, "bfloat16", "bfloat16"}, {DType::kF16, "float16", "<f2"},
    {DType::kF64, "float64", "<f8"}, {DType::kI32, "int32", "<i4"},          {DType::kU32, "uint32", "<u4"},
    {DType::kI64, "int64", "<i8"},   {DType::kI16, "int16", "<i2"},          {DType::kI8, "int8", "|i1"},
    {DType::kU8, "uint8", "|u1"},    {DType::kBool, "bool", "|b1"},          {DType::kF8E4M3, "float8_e4m3fn", "float8_e4m3fn"}};

const TypeName& NameOf(DType dtype) {
  for (const TypeName& type : kTypes) {
    if (type.dtype == dtype) return type;
  }
  FATHOM_CHECK(false, "no zarr name for {}", DTypeName(dtype));
}

// Fields of one metadata file, with errors that name it.
class Metadata {
 public:
  Metadata(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) Fail("not a JSON object");
  }

  [[noreturn]] void Fail(const std::string& what) const { Throw(ErrorCode::kInput, "{}: {}", where_, what); }
  static std::string Quoted(const Json& value) {
    const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    return text.size() > 60 ? text.substr(0, 57) + "..." : text;
  }

  const Json& Field(const Json& object, const char* name) const {
    if (!object.is_object() || !object.contains(name)) Fail(fmt::format("no field {}", name));
    return object[name];
  }
  const Json& Field(const char* name) const { return Field(json_, name); }
  const Json* Optional(const Json& object, const char* name) const {
    const auto found = object.find(name);
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }
  void Expect(const Json& object, const char* name, const Json& wanted) const {
    const Json& found = Field(object, name);
    if (found != wanted) Fail(fmt::format("{} is {}, understood is {}", name, Quoted(found), wanted.dump()));
  }
  void Expect(const char* name, const Json& wanted) const { Expect(json_, name, wanted); }

  // Counts; their product times 8 bytes fits.
  Shape Counts(const Json& value, const char* name, int64_t least) const {
    if (!value.is_array() || value.size() > Shape::kMaxRank)
      Fail(fmt::format("{} is {}, expected is a list of at most {} counts", name, Quoted(value), Shape::kMaxRank));
    Shape shape(std::vector<int64_t>(value.size(), 0));
    int64_t product = 1;
    for (size_t i = 0; i < value.size(); ++i) {
      const int64_t n = value[i].is_number_integer() ? value[i].get<int64_t>() : -1;
      if (n < least || n > int64_t{1} << 48) Fail(fmt::format("{} is {}, expected are counts of at least {}", name, Quoted(value), least));
      if (__builtin_mul_overflow(product, std::max<int64_t>(n, 1), &product) || product > int64_t{1} << 56)
        Fail(fmt::format("{} {} overflows", name, Quoted(value)));
      shape[static_cast<int>(i)] = n;
    }
    return shape;
  }

  DType Type(const Json& value, const char* TypeName::*column) const {
    for (const TypeName& type : kTypes) {
      if (value == type.*column) return type.dtype;
    }
    Fail(fmt::format("data type {} is not understood (float32, bfloat16, float16, int32 and the like are)", Quoted(value)));
  }

  void CheckChunks(const Shape& outer, const Shape& chunk, bool exact) const {
    if (outer.rank() != chunk.rank()) Fail(fmt::format("chunks {} of an array {}", chunk.ToString(), outer.ToString()));
    for (int i = 0; exact && i < chunk.rank(); ++i) {
      if (outer[i] % chunk[i] != 0) Fail(fmt::format("inner chunks {} do not divide the shard {}", chunk.ToString(), outer.ToString()));
    }
  }

  std::array<std::byte, 8> Fill(const Json* value, DType dtype) const;
  const Json& json() const { return json_; }

 private:
  const Json& json_;
  std::string where_;
};

template <class T>
void Put(T x, std::array<std::byte, 8>& out) {
  std::memcpy(out.data(), &x, sizeof x);
}

double FillNumber(const Metadata& meta, const Json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (value.is_number()) return value.get<double>();
  if (value == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (value == "Infinity") return std::numeric_limits<double>::infinity();
  if (value == "-Infinity") return -std::numeric_limits<double>::infinity();
  meta.Fail(fmt::format("fill_value {} is not understood", Metadata::Quoted(value)));
}

std::array<std::byte, 8> Metadata::Fill(const Json* value, DType dtype) const {
  std::array<std::byte, 8> out{};
  const double x = value == nullptr ? 0 : FillNumber(*this, *value);
  if (x == 0) return out;
  if (dtype == DType::kF32)
    Put(static_cast<float>(x), out);
  else if (dtype == DType::kBF16)
    Put(ToBF16(static_cast<float>(x)), out);
  else if (dtype == DType::kF16)
    Put(ToF16(static_cast<float>(x)), out);
  else if (dtype == DType::kF64)
    Put(x, out);
  else if (dtype == DType::kF8E4M3)
    Put(ToF8E4M3(static_cast<float>(x)), out);
  else if (!(std::fabs(x) < 0x1p53))
    Fail(fmt::format("fill_value {} for {}", x, DTypeName(dtype)));
  else
    Put(static_cast<int64_t>(x), out);
  return out;
}

// "configuration" of a codec; an empty object if absent.
const Json& Configuration(const Json& codec) {
  static const Json empty = Json::object();
  const auto found = codec.find("configuration");
  return found == codec.end() ? empty : *found;
}

const Json& CodecList(const Metadata& meta, const Json& object, const char* name) {
  const Json& codecs = meta.Field(object, name);
  if (!codecs.is_array() || codecs.empty() || codecs.size() > 8)
    meta.Fail(fmt::format("{} is {}, expected is a list of codecs", name, Metadata::Quoted(codecs)));
  return codecs;
}

std::string CodecName(const Metadata& meta, const Json& codec) {
  const Json& name = codec.is_string() ? codec : meta.Field(codec, "name");
  if (!name.is_string()) meta.Fail(fmt::format("codec {} has no name", Metadata::Quoted(codec)));
  return name.get<std::string>();
}

void CheckBytesCodec(const Metadata& meta, const Json& codec, DType dtype) {
  if (CodecName(meta, codec) != "bytes")
    meta.Fail(fmt::format("codec \"{}\" where bytes or sharding_indexed is understood", CodecName(meta, codec)));
  const auto endian = codec.is_object() ? Configuration(codec).find("endian") : codec.end();
  const bool given = codec.is_object() && endian != Configuration(codec).end();
  if (given && DTypeSize(dtype) > 1 && *endian != "little") meta.Fail("endian is not little");
}

// [bytes, zstd?, crc32c?]
void ParseChunkCodecs(const Metadata& meta, const Json& codecs, ZarrArray& array) {
  CheckBytesCodec(meta, codecs[0], array.dtype);
  for (size_t i = 1; i < codecs.size(); ++i) {
    const std::string name = CodecName(meta, codecs[i]);
    if (name == "zstd" && !array.zstd && !array.checksum) {
      array.zstd = true;
    } else if (name == "crc32c" && !array.checksum) {
      array.checksum = true;
    } else {
      meta.Fail(fmt::format("codec \"{}\" is not understood (bytes, zstd, crc32c and sharding_indexed are)", name));
    }
  }
}

void ParseIndexCodecs(const Metadata& meta, const Json& configuration, ZarrArray& array) {
  const Json& codecs = CodecList(meta, configuration, "index_codecs");
  CheckBytesCodec(meta, codecs[0], DType::kI64);
  array.index_checksum = codecs.size() == 2 && CodecName(meta, codecs[1]) == "crc32c";
  if (codecs.size() > 2 || (codecs.size() == 2 && !array.index_checksum))
    meta.Fail(fmt::format("index_codecs {} are not understood", Metadata::Quoted(codecs)));
  const Json* location = meta.Optional(configuration, "index_location");
  array.index_at_end = location == nullptr || *location == "end";
  if (!array.index_at_end && *location != "start")
    meta.Fail(fmt::format("index_location {} is neither start nor end", Metadata::Quoted(*location)));
}

void ParseCodecs(const Metadata& meta, ZarrArray& array) {
  const Json& codecs = CodecList(meta, meta.json(), "codecs");
  array.inner = array.chunk;
  if (CodecName(meta, codecs[0]) != "sharding_indexed") return ParseChunkCodecs(meta, codecs, array);
  if (codecs.size() != 1) meta.Fail("codecs behind sharding_indexed are not understood");
  const Json& configuration = meta.Field(codecs[0], "configuration");
  array.sharded = true;
  array.inner = meta.Counts(meta.Field(configuration, "chunk_shape"), "inner chunk_shape", 1);
  meta.CheckChunks(array.chunk, array.inner, true);
  ParseChunkCodecs(meta, CodecList(meta, configuration, "codecs"), array);
  ParseIndexCodecs(meta, configuration, array);
}

void ParseKeyEncoding(const Metadata& meta, ZarrArray& array) {
  const Json& encoding = meta.Field("chunk_key_encoding");
  meta.Expect(encoding, "name", "default");
  const Json* separator = meta.Optional(Configuration(encoding), "separator");
  if (separator != nullptr && *separator != "/" && *separator != ".")
    meta.Fail(fmt::format("separator {} is neither / nor .", Metadata::Quoted(*separator)));
  array.separator = separator == nullptr ? "/" : separator->get<std::string>();
}

// A chunk beyond the array is legal in zarr 3 (padding); of zero-sized arrays it is 1.
Json Dims(const Shape& shape) {
  Json dims = Json::array();
  for (const int64_t n : shape.dims()) dims.push_back(n);
  return dims;
}

Json FillJson(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
    case DType::kF8E4M3:
      return 0.0;
    case DType::kBool:
      return false;
    default:
      return 0;
  }
}

Json ChunkCodecsJson(const ZarrArray& array) {
  Json codecs = Json::array({{{"name", "bytes"}, {"configuration", {{"endian", "little"}}}}});
  if (array.zstd) codecs.push_back({{"name", "zstd"}, {"configuration", {{"level", array.zstd_level}, {"checksum", false}}}});
  if (array.checksum) codecs.push_back({{"name", "crc32c"}});
  return codecs;
}

Json Zarr3Json(const ZarrArray& array) {
  Json codecs = ChunkCodecsJson(array);
  if (array.sharded) {
    const Json index = {{{"name", "bytes"}, {"configuration", {{"endian", "little"}}}}, {{"name", "crc32c"}}};
    codecs = Json::array({{{"name", "sharding_indexed"},
                           {"configuration", {{"chunk_shape", Dims(array.inner)}, {"codecs", codecs}, {"index_codecs", index}}}}});
  }
  return {{"zarr_format", 3},
          {"node_type", "array"},
          {"shape", Dims(array.shape)},
          {"data_type", NameOf(array.dtype).v3},
          {"fill_value", FillJson(array.dtype)},
          {"chunk_grid", {{"name", "regular"}, {"configuration", {{"chunk_shape", Dims(array.chunk)}}}}},
          {"chunk_key_encoding", {{"name", "default"}}},
          {"codecs", codecs}};
}

Json Zarr2Json(const ZarrArray& array) {
  const Json compressor = array.zstd ? Json{{"id", "zstd"}, {"level", array.zstd_level}} : Json();
  return {{"zarr_format", 2},          {"shape", Dims(array.shape)}, {"chunks", Dims(array.chunk)}, {"dtype", NameOf(array.dtype).v2},
          {"compressor", compressor},  {"fill_value", nullptr},      {"filters", nullptr},          {"order", "C"},
          {"dimension_separator", "."}};
}

}  // namespace

Shape ZarrArray::Grid() const {
  Shape grid = shape;
  for (int a = 0; a < grid.rank(); ++a) grid[a] = GridSize(a);
  return grid;
}

Shape ZarrArray::InnerGrid() const {
  Shape grid = chunk;
  for (int a = 0; a < grid.rank(); ++a) grid[a] /= inner[a];
  return grid;
}

Shape Unravel(int64_t i, const Shape& grid) {
  Shape index = grid;
  for (int a = grid.rank() - 1; a >= 0; --a) {
    index[a] = i % grid[a];
    i /= grid[a];
  }
  return index;
}

std::string ZarrArray::ChunkKey(const Shape& index) const {
  std::string key = version == 3 ? "c" : "";
  for (int i = 0; i < index.rank(); ++i) {
    if (version == 3 || i > 0) key.append(separator);
    key.append(std::to_string(index[i]));
  }
  return version == 2 && index.rank() == 0 ? "0" : key;
}

ZarrArray PlainZarr(bool zarr3, DType dtype, const Shape& shape) {
  ZarrArray array;
  array.version = zarr3 ? 3 : 2;
  array.separator = std::string(1, zarr3 ? '/' : '.');
  array.dtype = dtype;
  array.shape = array.chunk = array.inner = shape;
  return array;
}

ZarrArray ParseZarr3(const Json& json, const std::string& where) {
  const Metadata meta(json, where);
  ZarrArray array;
  meta.Expect("zarr_format", 3);
  meta.Expect("node_type", "array");
  array.dtype = meta.Type(meta.Field("data_type"), &TypeName::v3);
  array.shape = meta.Counts(meta.Field("shape"), "shape", 0);
  const Json& grid = meta.Field("chunk_grid");
  meta.Expect(grid, "name", "regular");
  array.chunk = meta.Counts(meta.Field(meta.Field(grid, "configuration"), "chunk_shape"), "chunk_shape", 1);
  meta.CheckChunks(array.shape, array.chunk, false);
  ParseKeyEncoding(meta, array);
  ParseCodecs(meta, array);
  array.fill = meta.Fill(meta.Optional(json, "fill_value"), array.dtype);
  if (const Json* transformers = meta.Optional(json, "storage_transformers"); transformers != nullptr && !transformers->empty())
    meta.Fail("storage_transformers are not understood");
  return array;
}

ZarrArray ParseZarr2(const Json& json, const std::string& where) {
  const Metadata meta(json, where);
  ZarrArray array;
  array.version = 2;
  meta.Expect("zarr_format", 2);
  meta.Expect("order", "C");
  array.dtype = meta.Type(meta.Field("dtype"), &TypeName::v2);
  array.shape = meta.Counts(meta.Field("shape"), "shape", 0);
  array.chunk = array.inner = meta.Counts(meta.Field("chunks"), "chunks", 1);
  meta.CheckChunks(array.shape, array.chunk, false);
  if (const Json* filters = meta.Optional(json, "filters"); filters != nullptr && !filters->empty())
    meta.Fail(fmt::format("filters {} are not understood", Metadata::Quoted(*filters)));
  if (const Json* compressor = meta.Optional(json, "compressor")) {
    if (meta.Field(*compressor, "id") != "zstd")
      meta.Fail(fmt::format("compressor {} is not understood (zstd and null are)", Metadata::Quoted(*compressor)));
    array.zstd = true;
  }
  const Json* separator = meta.Optional(json, "dimension_separator");
  if (separator != nullptr && *separator != "/" && *separator != ".")
    meta.Fail(fmt::format("dimension_separator {} is neither / nor .", Metadata::Quoted(*separator)));
  array.separator = separator == nullptr ? "." : separator->get<std::string>();
  array.fill = meta.Fill(meta.Optional(json, "fill_value"), array.dtype);
  return array;
}

std::string FormatZarr(const ZarrArray& array) { return (array.version == 3 ? Zarr3Json(array) : Zarr2Json(array)).dump(); }

}  // namespace fathom
