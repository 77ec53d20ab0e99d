#include "fathom/chat/ordered_json.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"

namespace fathom {
namespace {

std::string Again(const std::string& text) { return DumpLikePython(ParseOrderedJson(text, "test")); }

TEST(OrderedJson, KeepsTheOrderOfKeysAndTheLastOfEqualOnes) {
  EXPECT_EQ(Again(R"({"z":1,"a":{"y":[],"b":{}},"m":[1,"x",null,true]})"),
            R"({"z": 1, "a": {"y": [], "b": {}}, "m": [1, "x", null, true]})");
  EXPECT_EQ(Again(R"({"a":1,"b":2,"a":3})"), R"({"a": 3, "b": 2})");
}

TEST(OrderedJson, WritesNumbersAsPython) {
  EXPECT_EQ(Again("[1e5, 1E16, 1e15, 123456789012345680.0, 0.0001, 0.00001, 1.50, -0.0, 0.1, 2.5e-8, 1e22, 5e-324]"),
            "[100000.0, 1e+16, 1000000000000000.0, 1.2345678901234568e+17, 0.0001, 1e-05, 1.5, -0.0, 0.1, 2.5e-08, 1e+22, 5e-324]");
  EXPECT_EQ(Again("[0, -0, -7, 18446744073709551615, 18446744073709551616, -99999999999999999999999]"),
            "[0, 0, -7, 18446744073709551615, 18446744073709551616, -99999999999999999999999]");
}

TEST(OrderedJson, EscapesOnlyWhatItMust) {
  EXPECT_EQ(Again(R"("\u6df1\u00e9\ud83d\udc4d \/ \" \\ \n\t\b\f\r\u001b\u007f")"), "\"深é👍 / \\\" \\\\ \\n\\t\\b\\f\\r\\u001b\x7f\"");
}

TEST(OrderedJson, RefusesWhatIsNoJson) {
  for (const std::string text :
       {"", "{", "{not json", "[1,]", "{\"a\" 1}", "\"\\ud800\"", "\"\x01\"", "\xEF\xBB\xBF{}", "1 2", "01", "nul"}) {
    EXPECT_THROW(Again(text), Error) << text;
  }
  EXPECT_NO_THROW(Again(std::string(64, '[') + std::string(64, ']')));
  EXPECT_THROW(Again(std::string(65, '[') + std::string(65, ']')), Error);
  EXPECT_THROW(Again(std::string(1000000, '[')), Error);
}

}  // namespace
}  // namespace fathom
