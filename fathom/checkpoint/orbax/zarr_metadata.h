// zarr v3 (zarr.json) and v2 (.zarray) metadata: the forms that Orbax writes and the plain ones.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "fathom/base/json.h"
#include "fathom/tensor/dtype.h"
#include "fathom/tensor/shape.h"

namespace fathom {

struct ZarrArray {
  int version = 3;
  DType dtype = DType::kF32;
  Shape shape;
  Shape chunk;           // stored under one key; edge chunks are padded to it
  Shape inner;           // what is decoded at once: equal to chunk unless a shard holds several
  bool sharded = false;  // v3's sharding_indexed around the codecs
  bool index_at_end = true, index_checksum = true;
  bool zstd = false, checksum = false;  // of an inner chunk
  int zstd_level = 3;
  std::string separator = "/";
  std::array<std::byte, 8> fill{};  // the first DTypeSize bytes

  int64_t NumElements() const { return shape.NumElements(); }
  int64_t ChunkBytes() const { return inner.NumElements() * DTypeSize(dtype); }
  // Number of chunks along each axis; inner ones of a chunk.
  int64_t GridSize(int i) const { return (shape[i] + chunk[i] - 1) / chunk[i]; }
  Shape Grid() const;
  Shape InnerGrid() const;
  // "c/0/2", "c" for a scalar; v2 "0.2", "0".
  std::string ChunkKey(const Shape& index) const;
};

// The index of cell i of a grid, row-major.
Shape Unravel(int64_t i, const Shape& grid);

// A new array of version 3 or 2: one chunk, stored plain.
ZarrArray PlainZarr(bool zarr3, DType dtype, const Shape& shape);

inline constexpr const char* kZarr3File = "zarr.json";
inline constexpr const char* kZarr2File = ".zarray";

// Throw Error(kInput) naming where, the field, what was found and what is understood: a shape that overflows, chunks that do not fit, a
// codec, dtype, order or filter that is not known.
ZarrArray ParseZarr3(const Json& json, const std::string& where);
ZarrArray ParseZarr2(const Json& json, const std::string& where);

// The metadata as Orbax writes it; which of the two is array.version.
std::string FormatZarr(const ZarrArray& array);

}  // namespace fathom
