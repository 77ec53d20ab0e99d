#include "fathom/parquet/codec.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"

namespace fathom {
namespace {

using namespace std::string_literals;

TEST(Snappy, LiteralsAndCopies) {
  std::string out;
  ASSERT_TRUE(SnappyDecompress("\x0d\x08"s + "abc" + "\x11\x03" + "\x06\x02\x00"s, &out));  // abc, 8 from 3 back, 2 from 2 back
  EXPECT_EQ(out, "abcabcabcabab");
  const std::string text(300, 'x');
  ASSERT_TRUE(SnappyDecompress("\xac\x02\xf4\x2b\x01"s + text, &out));  // a length in two bytes
  EXPECT_EQ(out, text);
  ASSERT_TRUE(SnappyDecompress("\0"s, &out));
  EXPECT_EQ(out, "");
}

TEST(Snappy, DamageIsRefused) {
  std::string out;
  EXPECT_FALSE(SnappyDecompress("", &out));
  EXPECT_FALSE(
      SnappyDecompress("\x03\x08"
                       "ab",
                       &out));  // the literal ends early
  EXPECT_FALSE(
      SnappyDecompress("\x04\x08"
                       "abc",
                       &out));  // too little
  EXPECT_FALSE(
      SnappyDecompress("\x07\x08"
                       "abc\x01\x04",
                       &out));  // from before the beginning
  EXPECT_FALSE(
      SnappyDecompress("\x07\x08"
                       "abc\x01\0"s,
                       &out));  // from nowhere
  EXPECT_FALSE(
      SnappyDecompress("\x04\x08"
                       "abc\x01\x03",
                       &out));  // beyond the size
  EXPECT_FALSE(
      SnappyDecompress("\xff\xff\xff\x7f\x08"
                       "abc",
                       &out));  // a size that nothing can make
}

TEST(DecompressPage, SizesAndCodecsAreChecked) {
  EXPECT_EQ(DecompressPage(ParquetCodec::kNone, "abc", 3, "x"), "abc");
  EXPECT_THROW(DecompressPage(ParquetCodec::kNone, "abc", 4, "x"), Error);
  EXPECT_THROW(DecompressPage(ParquetCodec::kGzip, "abc", 4, "x"), Error);
  EXPECT_THROW(DecompressPage(ParquetCodec::kZstd, "abc", 4, "x"), Error);
  EXPECT_THROW(DecompressPage(ParquetCodec::kBrotli, "abc", 3, "x"), Error);
}

}  // namespace
}  // namespace fathom
