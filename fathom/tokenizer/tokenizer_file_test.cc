#include "fathom/tokenizer/tokenizer_file.h"

#include <gtest/gtest.h>

#include <functional>

#include "fathom/base/error.h"
#include "fathom/testing/folder.h"
#include "fathom/tokenizer/test_data.h"

namespace fathom {
namespace {

Json Sound() { return ReadJsonFile(TokenizerTestData() / "deepseek/tokenizer.json"); }

// The message, "" if the text is accepted.
std::string ErrorOf(const std::string& text) {
  try {
    (void)ParseTokenizerFile(text, "file");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput) << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  return "";
}

void ExpectRefused(const std::string& words, const std::function<void(Json&)>& change) {
  Json file = Sound();
  change(file);
  const std::string message = ErrorOf(file.dump());
  EXPECT_NE(message.find(words), std::string::npos) << "\"" << message << "\" should hold \"" << words << "\"";
}

TEST(TokenizerFile, AcceptsBothSpellingsOfMerges) {
  Json file = Sound();
  const TokenizerFile pairs = ParseTokenizerFile(file.dump(), "file");
  for (Json& merge : file["model"]["merges"]) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  const TokenizerFile strings = ParseTokenizerFile(file.dump(), "file");
  ASSERT_EQ(pairs.merges.size(), 342u);
  for (size_t i = 0; i < pairs.merges.size(); ++i) {
    EXPECT_EQ(pairs.merges[i].left, strings.merges[i].left);
    EXPECT_EQ(pairs.merges[i].right, strings.merges[i].right);
    EXPECT_EQ(pairs.merges[i].joined, strings.merges[i].joined);
  }
}

TEST(TokenizerFile, ReadsTokens) {
  const TokenizerFile file = ParseTokenizerFile(Sound().dump(), "file");
  EXPECT_EQ(file.token_bytes.size(), 604u);
  EXPECT_EQ(file.token_bytes[2], "!");
  EXPECT_EQ(file.token_bytes[0], "<｜begin▁of▁sentence｜>");
  EXPECT_EQ(file.byte_ids['!'], 2);
  EXPECT_EQ(file.byte_ids[0], 2 + 188);  // the first stand-in beyond Latin-1
  ASSERT_EQ(file.added.size(), 6u);
  EXPECT_TRUE(file.added[1].special);
  EXPECT_FALSE(file.added[2].special);
}

TEST(TokenizerFile, RefusesWhatItDoesNotKnow) {
  ExpectRefused("normalizer", [](Json& f) { f["normalizer"] = {{"type", "NFC"}}; });
  ExpectRefused("decoder", [](Json& f) { f["decoder"] = {{"type", "Metaspace"}}; });
  ExpectRefused("decoder", [](Json& f) { f.erase("decoder"); });
  ExpectRefused("Unigram", [](Json& f) { f["model"]["type"] = "Unigram"; });
  ExpectRefused("byte_fallback", [](Json& f) { f["model"]["byte_fallback"] = true; });
  ExpectRefused("ignore_merges", [](Json& f) { f["model"]["ignore_merges"] = true; });
  ExpectRefused("lstrip", [](Json& f) { f["added_tokens"][0]["lstrip"] = true; });
  ExpectRefused("pre_tokenizer", [](Json& f) { f.erase("pre_tokenizer"); });
}

TEST(TokenizerFile, RefusesBrokenVocabularies) {
  ExpectRefused("model.vocab", [](Json& f) { f.erase("model"); });
  ExpectRefused("model.vocab", [](Json& f) { f["model"]["vocab"] = 3; });
  ExpectRefused("model.merges", [](Json& f) { f["model"].erase("merges"); });
  ExpectRefused("not an integer", [](Json& f) { f["model"]["vocab"]["zz"] = -1; });
  ExpectRefused("not an integer", [](Json& f) { f["model"]["vocab"]["zz"] = 1e18; });
  ExpectRefused("not an integer", [](Json& f) { f["model"]["vocab"]["zz"] = 5000000; });
  ExpectRefused("not an integer", [](Json& f) { f["model"]["vocab"]["zz"] = "1"; });
  ExpectRefused("no number", [](Json& f) { f["model"]["vocab"]["zz"] = Json::array(); });
  ExpectRefused("two tokens", [](Json& f) { f["model"]["vocab"]["zz"] = 5; });
  ExpectRefused("empty", [](Json& f) { f["model"]["vocab"][""] = 700; });
  ExpectRefused("for the byte 33", [](Json& f) { f["model"]["vocab"].erase("!"); });
  ExpectRefused("for the byte 194", [](Json& f) { f["model"]["vocab"].erase("Â"); });
}

TEST(TokenizerFile, RefusesBrokenMergesAndAddedTokens) {
  ExpectRefused("merge 0", [](Json& f) { f["model"]["merges"][0] = {"!", "é"}; });
  ExpectRefused("merge 3", [](Json& f) { f["model"]["merges"][3] = {"a", "b", "c"}; });
  ExpectRefused("merge 3", [](Json& f) { f["model"]["merges"][3] = 7; });
  ExpectRefused("merge 3", [](Json& f) { f["model"]["merges"][3] = "a b c"; });
  ExpectRefused("merge 3", [](Json& f) { f["model"]["merges"][3] = {{"a", {1}}}; });
  ExpectRefused("merge 3", [](Json& f) { f["model"]["merges"][3] = {{1, 2}, {3}}; });
  ExpectRefused("added_tokens", [](Json& f) { f["added_tokens"] = 1; });
  ExpectRefused("no content", [](Json& f) { f["added_tokens"][0] = 1; });
  ExpectRefused("no content", [](Json& f) { f["added_tokens"][0]["content"] = ""; });
  ExpectRefused("two ids", [](Json& f) { f["added_tokens"][0]["id"] = 9; });
  ExpectRefused("two tokens", [](Json& f) { f["added_tokens"][5]["id"] = 9; });
  ExpectRefused("special", [](Json& f) { f["added_tokens"][0]["special"] = 1; });
}

TEST(TokenizerFile, RefusesBrokenJson) {
  const std::string sound = Sound().dump();
  EXPECT_EQ(ErrorOf(sound), "");
  for (size_t n = 0; n < sound.size(); n += 97) EXPECT_NE(ErrorOf(sound.substr(0, n)), "") << n;
  EXPECT_NE(ErrorOf("[1]"), "");
  EXPECT_NE(ErrorOf("7"), "");
  EXPECT_NE(ErrorOf(std::string(100000, '[')).find("nested deeper"), std::string::npos);
  EXPECT_NE(ErrorOf(R"({"model": {"vocab": {}, "vocab": {}}})").find("twice"), std::string::npos);
  EXPECT_NE(ErrorOf(R"({"decoder": 1, "decoder": 2})").find("twice"), std::string::npos);
  EXPECT_NE(ErrorOf(R"({"model": {"vocab": {"a": 1, "a": 2}, "merges": []}, "decoder": {"type": "ByteLevel"}})"), "");
}

TEST(TokenizerConfig, ReadsStringsObjectsAndAbsence) {
  const auto config = ReadTokenizerConfig(TokenizerTestData() / "deepseek/tokenizer_config.json");
  EXPECT_EQ(config.bos_token, "<｜begin▁of▁sentence｜>");
  EXPECT_EQ(config.eos_token, "<｜end▁of▁sentence｜>");
  EXPECT_TRUE(config.add_bos_token);
  EXPECT_EQ(ReadTokenizerConfig("/nowhere/tokenizer_config.json").bos_token, "");
}

TEST(TokenizerConfig, RefusesWrongTypes) {
  const TemporaryFolder folder;
  for (const char* text : {"[]", "{", R"({"bos_token": 3})", R"({"eos_token": {"content": []}})", R"({"add_bos_token": "yes"})"}) {
    WriteFileAtomically(folder.path() / "c.json", text);
    EXPECT_THROW((void)ReadTokenizerConfig(folder.path() / "c.json"), Error) << text;
  }
}

}  // namespace
}  // namespace fathom
