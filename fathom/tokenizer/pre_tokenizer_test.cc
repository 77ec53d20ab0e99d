#include "fathom/tokenizer/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/tokenizer/test_data.h"

namespace fathom {
namespace {

using Pieces = std::vector<std::string>;

PreTokenizer FromFile(const std::string& name) {
  const auto path = TokenizerTestData() / name / "tokenizer.json";
  return PreTokenizer::FromJson(ReadJsonFile(path)["pre_tokenizer"], name);
}

PreTokenizer FromSteps(const Json& steps) { return PreTokenizer::FromJson({{"type", "Sequence"}, {"pretokenizers", steps}}, "file"); }
Json ByteLevel(bool use_regex) { return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}}; }
Json SplitStep(const std::string& pattern) { return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}}; }

Pieces Split(const PreTokenizer& pre_tokenizer, std::string_view text) {
  PieceCursor cursor(pre_tokenizer, text);
  Pieces pieces;
  for (std::string_view piece = cursor.Next(); !piece.empty(); piece = cursor.Next()) pieces.emplace_back(piece);
  return pieces;
}

Pieces DeepSeek(std::string_view text) { return Split(PreTokenizer::DeepSeekV3(), text); }
Pieces DeepSeekV2(std::string_view text) { return Split(FromFile("deepseek-v2"), text); }
Pieces Gpt2(std::string_view text) { return Split(PreTokenizer::FromJson(ByteLevel(true), "file"), text); }

TEST(PreTokenizer, SplitsWorkInsideThePiecesOfTheOneBefore) {
  EXPECT_EQ(DeepSeek("a  1"), (Pieces{"a", "  ", "1"}));  // the number ends the text for \s+(?!\S)
  EXPECT_EQ(DeepSeek("a  b"), (Pieces{"a", " ", " b"}));
  EXPECT_EQ(DeepSeek("12345"), (Pieces{"123", "45"}));
  EXPECT_EQ(DeepSeek("ab漢字cd"), (Pieces{"ab", "漢字", "cd"}));
  EXPECT_EQ(DeepSeek(" 漢・字 "), (Pieces{" ", "漢", "・", "字", " "}));
}

TEST(PreTokenizer, Alternatives) {
  EXPECT_EQ(DeepSeek(".word!?\n\nx"), (Pieces{".word", "!?\n\n", "x"}));
  EXPECT_EQ(DeepSeek(".naïve"), (Pieces{".na", "ïve"}));
  EXPECT_EQ(DeepSeek(" \n \n  x"), (Pieces{" \n \n", " ", " x"}));
  EXPECT_EQ(DeepSeek("\tx\t.y"), (Pieces{"\tx", "\t", ".y"}));
  EXPECT_EQ(DeepSeek(" ."), (Pieces{" ."}));
  EXPECT_EQ(DeepSeek("\u0301\u0301a"), (Pieces{"\u0301\u0301a"}));
  EXPECT_EQ(DeepSeek("\n\u0301"), (Pieces{"\n", "\u0301"}));
}

TEST(PreTokenizer, UnmatchedCharactersStayTogether) {
  EXPECT_EQ(DeepSeek("\x01\x02\x03"), (Pieces{"\x01\x02\x03"}));
  EXPECT_EQ(DeepSeek("\x01\x02\x03z"), (Pieces{"\x01\x02", "\x03z"}));
  EXPECT_EQ(DeepSeek("\x01z"), (Pieces{"\x01z"}));
  EXPECT_EQ(DeepSeek("\x01\xFF 5"), (Pieces{"\x01\xFF", " ", "5"}));
}

TEST(PreTokenizer, Gpt2Pattern) {
  EXPECT_EQ(Gpt2("don't we'll 's"), (Pieces{"don", "'t", " we", "'ll", " '", "s"}));
  EXPECT_EQ(Gpt2("a  12345\u0301 !"), (Pieces{"a", " ", " 12345", "\u0301", " !"}));
  EXPECT_EQ(Gpt2("x \n y"), (Pieces{"x", " \n", " y"}));
}

TEST(PreTokenizer, DeepSeekV2StepsWorkInsideThePiecesOfTheOneBefore) {
  EXPECT_EQ(DeepSeekV2("Hello world  \n12 x"), (Pieces{"Hello", " world", "  ", "\n", "1", "2", " x"}));
  EXPECT_EQ(DeepSeekV2(" naïve"), (Pieces{" na", "ï", "ve"}));  // a word of the second Split, of which the third takes the ASCII
  EXPECT_EQ(DeepSeekV2("a \u3000b"), (Pieces{"a", " ", "\u3000", "b"}));
  EXPECT_EQ(DeepSeekV2("é \u2003 "), (Pieces{"é", " ", "\u2003", " "}));  // the fifth cuts what \\s+$ has taken
  EXPECT_EQ(DeepSeekV2("Ḁ漢字ab。한글"), (Pieces{"Ḁ", "漢字", "ab", "。", "한글"}));
  EXPECT_EQ(DeepSeekV2("\r\n\n"), (Pieces{"\r", "\n", "\n"}));
  EXPECT_EQ(DeepSeekV2("x²½"), (Pieces{"x", "²", "½"}));
}

TEST(PreTokenizer, StepsStandInAnyOrder) {
  const auto trailing = FromSteps({SplitStep("\\s+$"), ByteLevel(false)});  // $ is the end of a line as well
  EXPECT_EQ(Split(trailing, "a \n b"), (Pieces{"a", " ", "\n b"}));
  EXPECT_EQ(Split(trailing, " \n \n x"), (Pieces{" \n ", "\n x"}));
  EXPECT_EQ(Split(trailing, "a\n"), (Pieces{"a", "\n"}));
  const auto digits = FromSteps({{{"type", "Digits"}}, ByteLevel(true)});
  EXPECT_EQ(Split(digits, "a 123!"), (Pieces{"a", " ", "123", "!"}));
  const auto words = FromSteps({PreTokenizer::DeepSeekV3().ToJson()["pretokenizers"][2], ByteLevel(false)});
  EXPECT_EQ(Split(words, "12a3 4"), (Pieces{"1", "2a", "3", " ", "4"}));
}

TEST(PreTokenizer, SameBoundariesAsTheLibrary) {
  for (const std::string name : {"deepseek", "deepseek-v2", "gpt2"}) {
    const PreTokenizer pre_tokenizer = FromFile(name);
    const auto rows = TokenizerTestRows("encode_" + name + ".jsonl");
    EXPECT_GT(rows.size(), 200u);
    for (const Json& row : rows) {
      std::vector<size_t> lengths;
      for (const std::string& piece : Split(pre_tokenizer, row["text"].get_ref<const std::string&>())) lengths.push_back(piece.size());
      EXPECT_EQ(lengths, row["pieces"].get<std::vector<size_t>>()) << row["text"];
    }
  }
}

// A text of n characters takes time linear in n, whatever it is made of.
TEST(PreTokenizer, LongRunsAreLinear) {
  const Stopwatch clock;
  for (const std::string_view unit :
       {" ", "\n", " \n", "a", "1", "!", "\x01", "漢", "゛", "\u0301", "'", "<｜", " \u200B", "é a", "漢1", "\u3000\u2003"}) {
    std::string text;
    while (text.size() < 400000) text += unit;
    DeepSeek(text);
    DeepSeek(text + "x");
    DeepSeekV2(text);
    DeepSeekV2(text + "x");
    Gpt2(text + "x");
  }
  EXPECT_LT(clock.Seconds(), 20);
}

std::string ErrorOf(const Json& entry) {
  try {
    (void)PreTokenizer::FromJson(entry, "file");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    return e.what();
  }
  return "";
}

TEST(PreTokenizer, JsonRoundTripAndUnknownPatterns) {
  for (const Json& entry : {PreTokenizer::DeepSeekV3().ToJson(), ByteLevel(true), ByteLevel(false)}) {
    EXPECT_EQ(PreTokenizer::FromJson(entry, "file").ToJson(), entry);
  }
  Json entry = PreTokenizer::DeepSeekV3().ToJson();
  entry["pretokenizers"][1]["pattern"]["Regex"] = "[a-z]+";
  EXPECT_NE(ErrorOf(entry).find("[a-z]+"), std::string::npos);
  entry = PreTokenizer::DeepSeekV3().ToJson();
  entry["pretokenizers"][2]["behavior"] = "Removed";
  EXPECT_NE(ErrorOf(entry), "");
  entry = PreTokenizer::DeepSeekV3().ToJson();
  entry["pretokenizers"].erase(3);  // no ByteLevel
  EXPECT_NE(ErrorOf(entry), "");
  entry["pretokenizers"] = Json(9, SplitStep("[\r\n]"));
  EXPECT_NE(ErrorOf(entry).find("sequence of 9"), std::string::npos);
  for (const char* bad :
       {"null", "3", "[]", "{}", R"({"type":"Whitespace"})", R"({"type":"Sequence"})", R"({"type":"Sequence","pretokenizers":[]})",
        R"({"type":"Sequence","pretokenizers":[1,2,3,4]})", R"({"type":"ByteLevel","add_prefix_space":true})"}) {
    EXPECT_NE(ErrorOf(Json::parse(bad)), "") << bad;
  }
}

}  // namespace
}  // namespace fathom
