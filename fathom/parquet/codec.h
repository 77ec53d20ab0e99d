// Compressed pages of a Parquet file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fathom/parquet/metadata.h"

namespace fathom {

// What stored becomes: exactly `bytes` bytes. Memory grows with what is really there. Throws Error(kInput), beginning with where: damaged,
// of another size, a codec that is not read (LZO, Brotli, LZ4).
std::string DecompressPage(ParquetCodec codec, std::string_view stored, int64_t bytes, const std::string& where);

// Raw Snappy (no frames). Forty lines instead of libsnappy, which nothing else here needs; false: damaged.
bool SnappyDecompress(std::string_view stored, std::string* out);

}  // namespace fathom
