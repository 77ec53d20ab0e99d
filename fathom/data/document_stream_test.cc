#include "fathom/data/document_stream.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

class DocumentStreamTest : public testing::Test {
 protected:
  DocumentStreamTest() {
    std::string lines;
    for (int i = 0; i < 60; ++i) lines += "{\"text\": \"" + std::to_string(i) + "\"}\n";
    lines += "{\"text\": \"\"}\n";  // nothing in it: skipped
    WriteFileAtomically(folder_.path() / "a.jsonl", lines);
    config_.dataset_path = folder_.path().string();
    config_.extent_bytes = 100;
  }
  static std::vector<std::string> Rest(DocumentStream& stream) {
    std::vector<std::string> texts;
    Document document;
    while (stream.Next(&document)) texts.push_back(document.text);
    return texts;
  }

  TemporaryFolder folder_;
  StreamConfig config_;
};

TEST_F(DocumentStreamTest, EveryDocumentOncePerEpochInAnotherOrder) {
  DocumentStream stream(config_);
  std::vector<std::string> first = Rest(stream);
  stream.Seek({1, 0, 0});
  std::vector<std::string> second = Rest(stream);
  EXPECT_NE(first, second);
  EXPECT_EQ(first.size(), 60u);
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  EXPECT_EQ(first, second);
}

TEST_F(DocumentStreamTest, InOrderWithoutShuffle) {
  config_.shuffle = false;
  DocumentStream stream(config_);
  const std::vector<std::string> texts = Rest(stream);
  ASSERT_EQ(texts.size(), 60u);
  for (size_t i = 0; i < 60; ++i) EXPECT_EQ(texts[i], std::to_string(i));
}

TEST_F(DocumentStreamTest, SeekGoesToAnyDocument) {
  DocumentStream stream(config_), other(config_);
  Document document;
  for (int i = 0; i < 30; ++i) {
    other.Seek(stream.position());
    EXPECT_EQ(other.position(), stream.position());
    Document again;
    ASSERT_TRUE(stream.Next(&document) && other.Next(&again));
    ASSERT_EQ(document.text, again.text);
  }
  EXPECT_EQ(Rest(stream), Rest(other));
}

TEST_F(DocumentStreamTest, HashTellsOtherFiles) {
  const uint64_t before = DocumentStream(config_).files_hash();
  EXPECT_EQ(DocumentStream(config_).files_hash(), before);
  WriteFileAtomically(folder_.path() / "b.jsonl", "{\"text\": \"new\"}\n");
  EXPECT_NE(DocumentStream(config_).files_hash(), before);
}

TEST(ShuffledOrder, IsAPermutationBySeedAndName) {
  std::vector<int64_t> order = ShuffledOrder(100, 1, "a");
  EXPECT_EQ(order, ShuffledOrder(100, 1, "a"));
  EXPECT_NE(order, ShuffledOrder(100, 2, "a"));
  EXPECT_NE(order, ShuffledOrder(100, 1, "b"));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

}  // namespace
}  // namespace fathom
