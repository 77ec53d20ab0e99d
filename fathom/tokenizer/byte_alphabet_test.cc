#include "fathom/tokenizer/byte_alphabet.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

TEST(ByteAlphabet, KnownStandIns) {
  EXPECT_EQ(BytesToStandIns(" a\n"), "Ġa\u010A");
  EXPECT_EQ(BytesToStandIns(std::string(1, '\0')), "\u0100");
  EXPECT_EQ(BytesToStandIns("\xAD"), "\u0143");
  EXPECT_EQ(BytesToStandIns("\xFF"), "ÿ");
}

TEST(ByteAlphabet, EveryByteComesBack) {
  const StandInReader reader;
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  EXPECT_EQ(reader.ToBytes(BytesToStandIns(all)), all);
}

TEST(ByteAlphabet, OtherCharactersAreNoStandIns) {
  const StandInReader reader;
  EXPECT_FALSE(reader.ToBytes("a b"));
  EXPECT_FALSE(reader.ToBytes("｜"));
  EXPECT_FALSE(reader.ToBytes("\u0144"));  // one beyond the last
  EXPECT_EQ(reader.DecodedBytes("<｜User｜>"), "<｜User｜>");
  EXPECT_EQ(reader.DecodedBytes("Ġa"), " a");
}

}  // namespace
}  // namespace fathom
