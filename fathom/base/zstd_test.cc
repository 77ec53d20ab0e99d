#include "fathom/base/zstd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "fathom/base/error.h"

namespace fathom {
namespace {

std::string Compressed(const std::string& text) {
  std::string out;
  ZstdCompressor(3).Compress(std::as_bytes(std::span(text)), out);
  return out;
}

// Hands out `bytes` in pieces of at most `piece`.
std::function<size_t(std::span<std::byte>)> Pieces(const std::string& bytes, size_t piece, size_t& at) {
  return [&bytes, piece, &at](std::span<std::byte> out) {
    const size_t n = std::min({piece, out.size(), bytes.size() - at});
    std::memcpy(out.data(), bytes.data() + at, n);
    at += n;
    return n;
  };
}

std::string ReadAll(const std::string& bytes, size_t piece, size_t step) {
  size_t at = 0;
  ZstdReader reader(Pieces(bytes, piece, at), "the file");
  std::string out, part(step, '\0');
  while (const size_t n = reader.ReadSome(std::as_writable_bytes(std::span(part)))) out.append(part, 0, n);
  return out;
}

std::string ErrorOf(const std::string& bytes) {
  try {
    ReadAll(bytes, 100, 100);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    return e.what();
  }
  return "";
}

TEST(Zstd, ReadsFramesOneAfterAnotherInAnyPieces) {
  std::string first(200000, 'a'), second;
  for (int i = 0; i < 30000; ++i) second += std::to_string(i * 7919 % 10007);
  const std::string bytes = Compressed(first) + Compressed("") + Compressed(second);
  for (const size_t piece : {size_t{1}, size_t{1000}, bytes.size()}) {
    for (const size_t step : {size_t{7}, size_t{65536}, size_t{1} << 20}) {
      EXPECT_TRUE(ReadAll(bytes, piece, step) == first + second) << piece << " " << step;
    }
  }
}

TEST(Zstd, SaysWhatIsWrongAndWhere) {
  const std::string whole = Compressed(std::string(1000, 'x') + "end");
  for (size_t n = 0; n < whole.size(); ++n) {
    EXPECT_NE(ErrorOf(whole.substr(0, n)).find("the file: zstd data ends early"), std::string::npos) << n;
  }
  EXPECT_NE(ErrorOf("this is no zstd").find("the file: damaged"), std::string::npos);
  EXPECT_NE(ErrorOf(whole + "trailing").find("the file: damaged"), std::string::npos);
}

}  // namespace
}  // namespace fathom
