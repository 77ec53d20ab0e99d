#include "fathom/data/file_format.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using namespace std::string_literals;

constexpr const char* kLines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";

std::string Compress(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

class DetectedFormat : public testing::Test {
 protected:
  FileFormat Detect(const std::string& name, const std::string& content) {
    WriteFileAtomically(folder_.path() / name, content);
    return DetectFormat(folder_.path() / name);
  }
  std::string MessageOf(const std::string& name, const std::string& content) {
    try {
      Detect(name, content);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos);
      return e.what();
    }
    return "";
  }
  TemporaryFolder folder_;
};

TEST_F(DetectedFormat, JsonLinesByNameOrContent) {
  for (const char* name : {"a.jsonl", "a.ndjson", "a.json", "a.JSON", "a.JsonL", "RC_2019-04", "a.data"}) {
    EXPECT_EQ(Detect(name, kLines).kind, FileKind::kJsonLines) << name;
    EXPECT_EQ(Detect(name + ".zst"s, Compress(kLines)).kind, FileKind::kJsonLines) << name;
    EXPECT_TRUE(Detect(name + ".ZSTD"s, Compress(kLines)).compressed) << name;
  }
  EXPECT_EQ(Detect("b.json", "\xef\xbb\xbf\n{\"text\": \"only\"}").kind, FileKind::kJsonLines);
  EXPECT_EQ(Detect("c.json", "{\"text\": \"" + std::string(200000, 'x') + "\"}\n").kind, FileKind::kJsonLines);
  EXPECT_EQ(Detect("a.txt", kLines).kind, FileKind::kText);
  EXPECT_EQ(Detect("prose", "Once upon a time\n").kind, FileKind::kText);
  EXPECT_EQ(Detect("code", "{ int x; }\n").kind, FileKind::kText);
}

TEST_F(DetectedFormat, ContentDecidesOnCompression) {
  EXPECT_TRUE(Detect("a.txt", Compress("text")).compressed);
  EXPECT_TRUE(Detect("b.zst", "\x50\x2a\x4d\x18\1\0\0\0x"s + Compress("text")).compressed);
  EXPECT_NE(MessageOf("c.zst", "text").find("damaged"), std::string::npos);
  EXPECT_EQ(Detect("empty.jsonl", "").kind, FileKind::kText);
}

TEST_F(DetectedFormat, JsonOfAnotherShapeSaysHowToRewriteIt) {
  EXPECT_EQ(Detect("a.json", "[{\"text\": \"one\"}]").kind, FileKind::kJsonArray);
  EXPECT_NE(MessageOf("b.json", "{\n  \"text\": \"one\"\n}\n").find("over several lines"), std::string::npos);
  EXPECT_NE(MessageOf("c.json", "plain").find("its content is none"), std::string::npos);
}

TEST_F(DetectedFormat, ParquetByItsMark) {
  EXPECT_EQ(Detect("a.parquet", "PAR1\x15\0"s).kind, FileKind::kParquet);
  EXPECT_TRUE(Detect("b.parquet.zst", Compress("PAR1\x15\0"s)).compressed);
}

TEST_F(DetectedFormat, BinaryDataSaysWhatItLooksLike) {
  const std::pair<std::string, const char*> cases[] = {
      {"\x1f\x8b\x08\0"s, "gzip"},
      {"\xfd"s + "7zXZ\0\0"s, "xz"},
      {"PK\x03\x04"s, "zip"},
      {std::string(257, 'a') + "ustar  \0"s, "tar"},
      {"%PDF-1.7\n\xe2\xe3\n"s, "PDF"},
      {"\xff\xfe"
       "a\0b\0"s,
       "UTF-16"},
      {"\xfe\xff\0a\0b"s, "UTF-16"},
      {"\xff\xfe\0\0a\0\0\0"s, "UTF-32"},
      {"a\0b\0c\0"s, "without a mark"},
      {std::string(1000, 'a') + '\0', "zero bytes"},
      {"na\xefve caf\xe9s in Latin-1"s, "another encoding"},
  };
  for (const auto& [content, what] : cases) {
    EXPECT_NE(MessageOf("a.txt", content).find(what), std::string::npos) << what;
    EXPECT_NE(MessageOf("a.txt.zst", Compress(content)).find(what), std::string::npos) << what;
    EXPECT_NE(MessageOf("a.jsonl", content).find(what), std::string::npos) << what;
  }
  EXPECT_NE(MessageOf("a.parquet", "text").find("its content is none"), std::string::npos);
  EXPECT_NE(MessageOf("b.parquet", "").find("its content is none"), std::string::npos);
  EXPECT_NE(MessageOf("c.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n").find("LFS"), std::string::npos);
  EXPECT_EQ(MessageOf("b.txt", "PARTS of it, ORCs, BZh, PAR1 and a zip: PK\n"), "");
  EXPECT_EQ(MessageOf("c.txt", std::string(1000, 'a') + "\xe9"), "") << "one broken character is no other encoding";
}

TEST_F(DetectedFormat, SaysThatAPointerIsNotTheFile) {
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
  for (const char* name : {"a.txt", "b.jsonl", "c.json", "d.jsonl.zst", "e.parquet"})
    EXPECT_NE(MessageOf(name, pointer).find("Git LFS pointer"), std::string::npos) << name;
}

TEST(CheckIsTextPart, BearsBrokenCharactersAndNoBinaryData) {
  CheckIsTextPart("caf\xe9", "x");
  EXPECT_THROW(CheckIsTextPart(std::string(100, '\xe9'), "x"), Error);
  EXPECT_THROW(CheckIsTextPart("a\0b"s, "x"), Error);
  CheckIsTextPart("cut \xe2\x82", "x");
}

}  // namespace
}  // namespace fathom
