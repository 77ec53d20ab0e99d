#include "fathom/data/token_file.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/data/text.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using Ids = std::vector<int32_t>;

std::filesystem::path Write(const TemporaryFolder& folder, const std::vector<Ids>& documents) {
  const auto path = folder.path() / "a.tokens";
  TokenFileWriter writer(path, 77);
  for (const Ids& ids : documents) {
    writer.Add(std::span(ids).first(ids.size() / 2), false);  // in parts
    writer.Add(std::span(ids).subspan(ids.size() / 2), true);
  }
  writer.Close();
  return path;
}

TEST(TokenFile, HoldsDocuments) {
  const TemporaryFolder folder;
  const std::vector<Ids> documents = {{1, 2, 3}, {4}, {5, 6, 7, 8, 9}};
  const auto file = TokenFile::Open(Write(folder, {documents[0], {}, documents[1], documents[2]}));
  EXPECT_EQ(file->tokenizer_hash(), 77u);
  ASSERT_EQ(file->documents(), 3);
  for (int64_t i = 0; i < 3; ++i) {
    const auto ids = file->document(i);
    EXPECT_EQ(Ids(ids.begin(), ids.end()), documents[static_cast<size_t>(i)]);
  }
}

TEST(TokenFile, DamageIsRefused) {
  const TemporaryFolder folder;
  const auto path = Write(folder, {{1, 2, 3}, {4}});
  const std::string content = ReadTextFile(path);
  for (const size_t size : {size_t{0}, size_t{10}, content.size() - 1, content.size() - 8}) {
    WriteFileAtomically(path, content.substr(0, size));
    EXPECT_THROW(TokenFile::Open(path), Error) << size;
  }
  std::string swapped = content;
  swapped[content.size() - 8] = 2;  // the second document ends before the first
  WriteFileAtomically(path, swapped);
  EXPECT_THROW(TokenFile::Open(path), Error);
}

TEST(TokenFile, IsReadAsRows) {
  const TemporaryFolder folder;
  std::vector<Ids> documents;
  for (int i = 0; i < 50; ++i) documents.push_back(Ids(static_cast<size_t>(1 + i % 7), i));
  const std::vector<DataFile> files = DescribeFiles({Write(folder, documents)});
  EXPECT_EQ(files[0].kind, FileKind::kTokens);
  std::vector<Ids> got;
  for (const Extent& extent : CutIntoExtents(files, 40)) {
    EXPECT_LE(extent.end - extent.begin, 10);
    const auto rows = OpenRows(files[0], extent, {});
    for (Row row; rows->Next(&row);) got.push_back(IdsOfBytes(row.json));
  }
  EXPECT_EQ(got, documents);
}

}  // namespace
}  // namespace fathom
