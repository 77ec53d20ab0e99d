#include "fathom/tokenizer/added_tokens.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

AddedTokenMatcher Make() {
  return AddedTokenMatcher({{1, "<a>", true, false}, {2, "<a><b>", true, false}, {3, "b><c", false, false}, {4, "<<", false, false}});
}

void ExpectMatch(const AddedTokenMatcher& matcher, std::string_view text, size_t from, size_t begin, size_t length, int32_t id) {
  const auto match = matcher.Find(text, from);
  EXPECT_EQ(match.begin, begin) << text;
  EXPECT_EQ(match.length, length) << text;
  EXPECT_EQ(match.id, id) << text;
}

TEST(AddedTokens, LeftmostThenLongest) {
  const auto matcher = Make();
  ExpectMatch(matcher, "x<a>y", 0, 1, 3, 1);
  ExpectMatch(matcher, "x<a><b>y", 0, 1, 6, 2);
  ExpectMatch(matcher, "x<a><by", 0, 1, 3, 1);
  ExpectMatch(matcher, "<b><c", 0, 1, 4, 3);
  ExpectMatch(matcher, "<<<a>", 0, 0, 2, 4);
}

TEST(AddedTokens, StartsWhereItIsTold) {
  const auto matcher = Make();
  ExpectMatch(matcher, "<a><a>", 1, 3, 3, 1);
  ExpectMatch(matcher, "<a>", 1, 3, 0, -1);
  ExpectMatch(matcher, "", 0, 0, 0, -1);
}

TEST(AddedTokens, NoneWithoutTokens) { ExpectMatch(AddedTokenMatcher({}), "<a>", 0, 3, 0, -1); }

TEST(AddedTokens, PrefixOfATokenAtTheEndOfTheText) {
  ExpectMatch(Make(), "x<a", 0, 3, 0, -1);
  ExpectMatch(Make(), "x<", 0, 2, 0, -1);
}

}  // namespace
}  // namespace fathom
