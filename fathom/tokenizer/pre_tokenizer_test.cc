#include "fathom/tokenizer/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/tokenizer/test_data.h"

namespace fathom {
namespace {

using Pieces = std::vector<std::string>;

Pieces Split(PreTokenizer::Kind kind, std::string_view text) {
  const PreTokenizer pre_tokenizer(kind);
  Pieces pieces;
  while (!text.empty()) {
    pieces.emplace_back(text.substr(0, pre_tokenizer.PieceLength(text)));
    text.remove_prefix(pieces.back().size());
  }
  return pieces;
}

Pieces DeepSeek(std::string_view text) { return Split(PreTokenizer::Kind::kDeepSeekV3, text); }
Pieces Gpt2(std::string_view text) { return Split(PreTokenizer::Kind::kGpt2, text); }

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

TEST(PreTokenizer, SameBoundariesAsTheLibrary) {
  for (const auto& [kind, file] :
       {std::pair(PreTokenizer::Kind::kDeepSeekV3, "encode_deepseek.jsonl"), std::pair(PreTokenizer::Kind::kGpt2, "encode_gpt2.jsonl")}) {
    const auto rows = TokenizerTestRows(file);
    EXPECT_GT(rows.size(), 200u);
    for (const Json& row : rows) {
      std::vector<size_t> lengths;
      for (const std::string& piece : Split(kind, row["text"].get_ref<const std::string&>())) lengths.push_back(piece.size());
      EXPECT_EQ(lengths, row["pieces"].get<std::vector<size_t>>()) << row["text"];
    }
  }
}

// A text of n characters takes time linear in n, whatever it is made of.
TEST(PreTokenizer, LongRunsAreLinear) {
  const Stopwatch clock;
  for (const std::string_view unit : {" ", "\n", " \n", "a", "1", "!", "\x01", "漢", "゛", "\u0301", "'", "<｜", " \u200B"}) {
    std::string text;
    while (text.size() < 400000) text += unit;
    DeepSeek(text);
    DeepSeek(text + "x");
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
  for (const auto kind : {PreTokenizer::Kind::kDeepSeekV3, PreTokenizer::Kind::kGpt2, PreTokenizer::Kind::kWhole}) {
    EXPECT_EQ(PreTokenizer::FromJson(PreTokenizer(kind).ToJson(), "file").kind(), kind);
  }
  Json entry = PreTokenizer(PreTokenizer::Kind::kDeepSeekV3).ToJson();
  entry["pretokenizers"][1]["pattern"]["Regex"] = "[a-z]+";
  EXPECT_NE(ErrorOf(entry).find("[a-z]+"), std::string::npos);
  entry = PreTokenizer(PreTokenizer::Kind::kDeepSeekV3).ToJson();
  entry["pretokenizers"][2]["behavior"] = "Removed";
  EXPECT_NE(ErrorOf(entry), "");
  for (const char* bad :
       {"null", "3", "[]", "{}", R"({"type":"Whitespace"})", R"({"type":"Sequence"})", R"({"type":"Sequence","pretokenizers":[]})",
        R"({"type":"Sequence","pretokenizers":[1,2,3,4]})", R"({"type":"ByteLevel","add_prefix_space":true})"}) {
    EXPECT_NE(ErrorOf(Json::parse(bad)), "") << bad;
  }
}

}  // namespace
}  // namespace fathom
