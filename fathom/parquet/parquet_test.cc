#include "fathom/parquet/parquet.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/zstd.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using Json = nlohmann::json;

const std::vector<std::string> kColumns = {"messages", "id", "small", "flag", "score", "meta", "text"};

std::filesystem::path Data(const std::string& name) { return std::filesystem::path(FATHOM_TEST_DATA) / "parquet" / name; }

std::vector<Json> ReadRows(const std::filesystem::path& path, const std::vector<std::string>& columns = kColumns,
                           bool within_zstd = false) {
  const auto file = ParquetFile::Open(path, within_zstd);
  std::vector<Json> rows;
  std::string json;
  for (size_t group = 0; group < file->metadata().groups.size(); ++group) {
    ParquetRows reader(file, group, columns);
    while (reader.Next(&json)) rows.push_back(Json::parse(json));
  }
  return rows;
}

std::vector<Json> Expected() {
  std::istringstream lines(ReadTextFile(Data("rows.jsonl")));
  std::vector<Json> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(Json::parse(line));
  return rows;
}

std::string MessageOf(const std::filesystem::path& path, const std::vector<std::string>& columns = kColumns) {
  try {
    ReadRows(path, columns);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    EXPECT_NE(std::string(e.what()).find(path.filename().string()), std::string::npos);
    return e.what();
  }
  return "";
}

TEST(Parquet, EveryCodecPageVersionAndEncodingGivesTheSameRows) {
  const std::vector<Json> want = Expected();
  for (const char* name : {"snappy", "plain", "gzip_v2", "zstd_v2", "small_pages", "delta"}) {
    const std::vector<Json> got = ReadRows(Data(name + std::string(".parquet")));
    ASSERT_EQ(got.size(), want.size()) << name;
    for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], want[i]) << name << " " << i;
  }
}

TEST(Parquet, ReadsTheColumnsThatAreAskedFor) {
  const std::vector<Json> got = ReadRows(Data("snappy.parquet"), {"text", "absent"}), want = Expected();
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].value("text", "?"), want[i].value("text", "?"));
    EXPECT_FALSE(got[i].contains("id"));
  }
  EXPECT_NE(MessageOf(Data("snappy.parquet"), {"absent"}).find("no column absent; it has messages, id"), std::string::npos);
}

TEST(Parquet, WithinZstd) {
  const TemporaryFolder folder;
  const std::string content = ReadTextFile(Data("plain.parquet"));
  std::string compressed;
  ZstdCompressor(3).Compress(std::as_bytes(std::span(content)), compressed);
  WriteFileAtomically(folder.path() / "a.parquet.zst", compressed);
  EXPECT_EQ(ReadRows(folder.path() / "a.parquet.zst", kColumns, true), Expected());
}

// Cut at any place, or with any byte changed: an error or rows, never a crash; cut off is always an error.
TEST(Parquet, DamageIsAnErrorOrRows) {
  const TemporaryFolder folder;
  for (const char* name : {"snappy.parquet", "delta.parquet", "gzip_v2.parquet"}) {
    const std::string content = ReadTextFile(Data(name));
    for (size_t at = 0; at < content.size(); at += content.size() / 40) {
      WriteFileAtomically(folder.path() / name, content.substr(0, at));
      EXPECT_NE(MessageOf(folder.path() / name), "") << name << " cut at " << at;
    }
    for (size_t at = 0; at < content.size(); at += 7) {
      std::string damaged = content;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
      WriteFileAtomically(folder.path() / name, damaged);
      try {
        ReadRows(folder.path() / name);
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kInput);
      } catch (const Json::exception&) {
        // a text that is no UTF-8 any more
      }
    }
  }
}

}  // namespace
}  // namespace fathom
