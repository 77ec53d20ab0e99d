#include "fathom/data/document_stream.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "fathom/base/error.h"
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

// Bytes of plain text in each part, and what both parts hold together, sorted.
struct Parts {
  size_t train = 0, held_out = 0;
  std::string text;
};
Parts HoldOut(StreamConfig config, double fraction) {
  Parts parts;
  config.shuffle = false;
  config.held_out_fraction = fraction;
  for (const Split split : {Split::kTrain, Split::kHeldOut}) {
    config.split = split;
    DocumentStream stream(config);
    for (Document d; stream.Next(&d); parts.text += d.text) (split == Split::kTrain ? parts.train : parts.held_out) += d.text.size();
  }
  std::sort(parts.text.begin(), parts.text.end());
  return parts;
}

TEST_F(DocumentStreamTest, SmallTextsAreHeldOutInTheShareAskedFor) {
  std::string text;
  for (int i = 0; text.size() < 300'000; ++i) text += "line " + std::to_string(i) + (i % 7 == 0 ? "\n\n" : "\n");
  std::filesystem::create_directory(folder_.path() / "text");
  WriteFileAtomically(folder_.path() / "text" / "a.txt", text);
  config_.dataset_path = (folder_.path() / "text").string();
  std::sort(text.begin(), text.end());
  for (const int64_t extent : {1000, 64 << 10, 1 << 20}) {
    config_.extent_bytes = extent;
    for (const double fraction : {0.0, 0.001, 0.02, 0.3, 0.9}) {
      const Parts parts = HoldOut(config_, fraction);
      EXPECT_EQ(parts.text, text);
      EXPECT_NEAR(static_cast<double>(parts.held_out), fraction * 300'000, 100) << extent << " " << fraction;
    }
  }
}

TEST(OneColumn, RefusesMoreThanIsRead) {
  EXPECT_EQ(OneColumn({"body"}, "train_data_columns"), "body");
  EXPECT_THROW(OneColumn({"text", "body"}, "train_data_columns"), Error);
  EXPECT_THROW(OneColumn({}, "train_data_columns"), Error);
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
