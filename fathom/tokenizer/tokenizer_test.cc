#include "fathom/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"
#include "fathom/tokenizer/test_data.h"

namespace fathom {
namespace {

using Ids = std::vector<int32_t>;

Tokenizer Load(const std::string& name) { return Tokenizer::Load(TokenizerTestData() / name); }

TEST(Tokenizer, EncodesAsTheLibrary) {
  for (const std::string name : {"deepseek", "deepseek-v2", "gpt2"}) {
    const Tokenizer tokenizer = Load(name);
    for (const Json& row : TokenizerTestRows("encode_" + name + ".jsonl")) {
      const auto& text = row["text"].get_ref<const std::string&>();
      EXPECT_EQ(tokenizer.Encode(text), row["ids"].get<Ids>()) << row["text"];
      EXPECT_EQ(tokenizer.Encode(text, {.added_tokens = false}), row.value("ordinary", row["ids"]).get<Ids>()) << row["text"];
      EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text)), text);
    }
  }
}

TEST(Tokenizer, BytesWithoutTokenBecomeReplacementCharacters) {
  const Tokenizer tokenizer = Load("deepseek-v2");
  EXPECT_EQ(tokenizer.Encode("a\xFF"
                             "b\xC0"),
            tokenizer.Encode("a\uFFFD"
                             "b\uFFFD"));
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode("a\x80")), "a\uFFFD");  // has a token
}

TEST(Tokenizer, DecodesAsTheLibrary) {
  const Tokenizer tokenizer = Load("deepseek");
  for (const Json& row : TokenizerTestRows("decode_deepseek.jsonl")) {
    const Ids ids = row["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.Decode(ids), row["text"]) << row["ids"];
    EXPECT_EQ(tokenizer.Decode(ids, true), row["text_skip_special"]) << row["ids"];
  }
}

TEST(Tokenizer, StreamShowsWholeCharactersOnly) {
  const Tokenizer tokenizer = Load("deepseek");
  for (const Json& row : TokenizerTestRows("decode_deepseek.jsonl")) {
    StreamDecoder decoder(tokenizer);
    std::vector<std::string> pieces;
    for (const int32_t id : row["ids"].get<Ids>()) pieces.push_back(decoder.Push(id));
    EXPECT_EQ(Json(pieces), row["pieces"]) << row["ids"];
    EXPECT_EQ(decoder.Flush(), row["tail"]) << row["ids"];
    EXPECT_EQ(decoder.Flush(), "");
  }
}

TEST(Tokenizer, StreamSkipsSpecialTokens) {
  const Tokenizer tokenizer = Load("deepseek");
  StreamDecoder decoder(tokenizer, true);
  EXPECT_EQ(decoder.Push(0), "");
  EXPECT_EQ(decoder.Push(tokenizer.Encode("!")[0]), "!");
}

TEST(Tokenizer, SpecialTokensAndBos) {
  const Tokenizer tokenizer = Load("deepseek");
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 1);
  EXPECT_TRUE(tokenizer.add_bos_token());
  EXPECT_EQ(tokenizer.vocab_size(), 604);
  EXPECT_TRUE(tokenizer.IsSpecial(1));
  EXPECT_FALSE(tokenizer.IsSpecial(600));
  EXPECT_EQ(tokenizer.Encode("!", {.add_bos = true}), (Ids{0, 2}));
  EXPECT_EQ(tokenizer.Encode("<｜User｜>!"), (Ids{600, 2}));
  EXPECT_TRUE(tokenizer.TokenBytes(-1).empty() && tokenizer.TokenBytes(604).empty());
}

TEST(Tokenizer, WithoutConfigThereIsNoBos) {
  const Tokenizer tokenizer = Tokenizer::Load(TokenizerTestData() / "gpt2" / "tokenizer.json");
  EXPECT_FALSE(tokenizer.bos_id());
  EXPECT_THROW((void)tokenizer.Encode("a", {.add_bos = true}), Error);
  EXPECT_THROW((void)tokenizer.EncodeBatch(std::vector<std::string_view>{"a"}, {.add_bos = true}), Error);
}

// Bytes that are no UTF-8 are encoded byte by byte and come back.
TEST(Tokenizer, BrokenUtf8KeepsItsBytes) {
  const Tokenizer tokenizer = Load("deepseek");
  const std::string text = "a\xFF\xE4\xBD b\xC3";
  std::string bytes;
  for (const int32_t id : tokenizer.Encode(text)) bytes += tokenizer.TokenBytes(id);
  EXPECT_EQ(bytes, text);
}

TEST(Tokenizer, BatchAndThreadsGiveTheSame) {
  const Tokenizer tokenizer = Load("deepseek");
  const auto rows = TokenizerTestRows("encode_deepseek.jsonl");
  std::vector<std::string_view> texts;
  std::vector<Ids> expected;
  for (const Json& row : rows) {
    texts.push_back(row["text"].get_ref<const std::string&>());
    expected.push_back(row["ids"].get<Ids>());
  }
  const auto same = [&] { return tokenizer.EncodeBatch(texts) == expected; };
  for (const int threads : {1, 4}) {
    SetThreads(threads);
    EXPECT_TRUE(same());
  }
  SetThreads(1);
  std::vector<std::thread> running;
  for (int i = 0; i < 4; ++i) running.emplace_back([&] { EXPECT_TRUE(same()); });
  for (auto& thread : running) thread.join();
}

TEST(Tokenizer, MissingFilesAreInputErrors) {
  try {
    (void)Tokenizer::Load(TokenizerTestData() / "absent");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    EXPECT_NE(std::string(e.what()).find("absent"), std::string::npos);
  }
}

}  // namespace
}  // namespace fathom
