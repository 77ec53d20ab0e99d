#include "fathom/data/row_reader.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/zstd.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

class RowFiles : public testing::Test {
 protected:
  DataFile Write(const std::string& name, const std::string& content) {
    WriteFileAtomically(folder_.path() / name, content);
    return DescribeFiles({folder_.path() / name})[0];
  }
  static std::vector<Row> ReadAll(const DataFile& file) {
    std::vector<Row> rows;
    const auto reader = OpenRows(file, WholeFile(0, file), {"text"});
    for (Row row; reader->Next(&row);) rows.push_back(row);
    return rows;
  }
  std::string MessageOf(const std::string& name, const std::string& content) {
    try {
      ReadAll(Write(name, content));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      return e.what();
    }
    return "";
  }
  TemporaryFolder folder_;
};

std::string Zstd(const std::string& text) {
  std::string out;
  ZstdCompressor(3).Compress(std::as_bytes(std::span(text)), out);
  return out;
}

TEST_F(RowFiles, LinesAreCountedFromOneAndEmptyOnesAreNoRows) {
  for (const bool zstd : {false, true}) {
    const std::string text = "\xef\xbb\xbf{\"a\": 1}\n\n  \n{\"b\": 2}\r\n{\"c\": 3}";
    const DataFile file = zstd ? Write("a.jsonl.zst", Zstd(text)) : Write("a.jsonl", text);
    const std::vector<Row> rows = ReadAll(file);
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_EQ(rows[0].json, "{\"a\": 1}");
    EXPECT_EQ(rows[2].json, "{\"c\": 3}");
    EXPECT_TRUE(DescribeRow(file, rows[1].place).ends_with(", line 4"));
    EXPECT_TRUE(DescribeRow(file, rows[2].place).ends_with(", line 5"));
  }
}

TEST_F(RowFiles, AnArrayHasItsElements) {
  const std::string long_text(200000, 'x');
  const std::string text = " [ {\"a\": [1, {\"b\": \"],}\\\\\\\"\"}]} ,\n{\"c\": \"" + long_text + "\"}\n, 5 ]\n";
  for (const bool zstd : {false, true}) {
    const DataFile file = zstd ? Write("a.json.zst", Zstd(text)) : Write("a.json", text);
    const std::vector<Row> rows = ReadAll(file);
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_EQ(rows[0].json, "{\"a\": [1, {\"b\": \"],}\\\\\\\"\"}]} ");
    EXPECT_EQ(rows[1].json.size(), long_text.size() + 10);
    EXPECT_EQ(rows[2].place, 2);
    EXPECT_TRUE(DescribeRow(file, 2).ends_with(", row 3"));
  }
  EXPECT_TRUE(ReadAll(Write("b.json", "[]")).empty());
  EXPECT_NE(MessageOf("c.json", "[{\"a\": 1}, {\"b\"").find("ends inside row 2"), std::string::npos);
  EXPECT_NE(MessageOf("d.json", "[1] 2").find("behind the end"), std::string::npos);
}

TEST_F(RowFiles, ParquetByRowGroup) {
  const auto path = std::filesystem::path(FATHOM_TEST_DATA) / "parquet" / "snappy.parquet";
  const DataFile file = DescribeFiles({path})[0];
  EXPECT_EQ(ReadAll(file).size(), 30u);
  std::vector<Row> rows;
  for (const Extent& extent : CutIntoExtents({file}, 100)) {
    EXPECT_LE(extent.end - extent.begin, 7);
    const auto reader = OpenRows(file, extent, {"text"});
    for (Row row; reader->Next(&row);) rows.push_back(row);
  }
  ASSERT_EQ(rows.size(), 30u);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].place, static_cast<int64_t>(i));
  EXPECT_EQ(ReadAll(Write("a.parquet.zst", Zstd(ReadTextFile(path)))).size(), 30u);
}

TEST_F(RowFiles, PlainTextHasNone) {
  EXPECT_NE(MessageOf("a.txt", "text").find("plain text"), std::string::npos);
  EXPECT_NE(MessageOf("a.jsonl", "").find("is empty"), std::string::npos);
}

}  // namespace
}  // namespace fathom
