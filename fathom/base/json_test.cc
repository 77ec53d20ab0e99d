#include "fathom/base/json.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"

namespace fathom {
namespace {

std::string ErrorOf(std::string_view text, int max_depth = 64) {
  try {
    ParseJson(text, "x.json", max_depth);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    return e.what();
  }
  return "";
}

TEST(ParseJson, Values) {
  EXPECT_EQ(ParseJson(R"({"a": [1, 2.5, "x", null, true]})", "x.json")["a"].size(), 5u);
  EXPECT_EQ(ErrorOf(R"({"a": {"b": 1}, "b": 2})"), "");
}

TEST(ParseJson, BrokenText) {
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "\"\x80\xff\"", "\xff", "[1] 2", "NaN", "01"}) {
    const std::string error = ErrorOf(text);
    EXPECT_EQ(error.rfind("x.json: not valid JSON (parse error at line 1", 0), 0u) << error;
    EXPECT_EQ(error.find("last read"), error.npos) << error;
  }
  EXPECT_LT(ErrorOf('"' + std::string(100000, 'x')).size(), 200u);
}

TEST(ParseJson, Depth) {
  EXPECT_EQ(ErrorOf("[[[]]]", 3), "");
  EXPECT_NE(ErrorOf("[[[[1]]]]", 3), "");
  EXPECT_NE(ErrorOf(std::string(200000, '[')).find("nested deeper than 64"), std::string::npos);
}

TEST(ParseJson, RepeatedKeys) {
  EXPECT_NE(ErrorOf(R"({"a": 1, "a": 1})").find("key \"a\" stands twice"), std::string::npos);
  EXPECT_NE(ErrorOf(R"({"b": {"a": 1, "\u0061": 1}})").find("stands twice"), std::string::npos);
}

}  // namespace
}  // namespace fathom
