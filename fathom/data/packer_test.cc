#include "fathom/data/packer.h"

#include <gtest/gtest.h>

#include <string>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// "0+3 10+1 | 3+4": spans as begin+count, rows divided by bars.
std::string Pack(Packing packing, int64_t length, int64_t max_segments, const std::vector<int64_t>& counts) {
  Packer packer(packing, length, max_segments);
  for (size_t i = 0; i < counts.size(); ++i) packer.Add(static_cast<int64_t>(100 * i), counts[i]);
  const PackedRows rows = packer.Finish();
  std::string text;
  for (int64_t r = 0; r < rows.rows(); ++r) {
    text += r > 0 ? " |" : "";
    for (int64_t s = rows.first_span[static_cast<size_t>(r)]; s < rows.first_span[static_cast<size_t>(r) + 1]; ++s) {
      const PackedSpan& span = rows.spans[static_cast<size_t>(s)];
      text += fmt::format(" {}+{}", span.begin, span.count);
    }
  }
  return text;
}

TEST(Packer, ConcatThenSplitLeavesNoHole) {
  EXPECT_EQ(Pack(Packing::kConcatThenSplit, 5, 0, {3, 4, 11}), " 0+3 100+2 | 102+2 200+3 | 203+5 | 208+3");
  EXPECT_EQ(Pack(Packing::kConcatThenSplit, 5, 1, {3, 4}), " 0+3 | 100+4");
}

TEST(Packer, FirstFitKeepsDocumentsWhole) {
  EXPECT_EQ(Pack(Packing::kFirstFit, 5, 0, {3, 4, 2, 1}), " 0+3 200+2 | 100+4 300+1");
  EXPECT_EQ(Pack(Packing::kFirstFit, 5, 0, {12, 3}), " 0+5 | 5+5 | 10+2 100+3");
  EXPECT_EQ(Pack(Packing::kFirstFit, 6, 2, {1, 1, 1}), " 0+1 100+1 | 200+1");
}

TEST(Packer, NoneGivesARowToEach) { EXPECT_EQ(Pack(Packing::kNone, 5, 0, {3, 7}), " 0+3 | 100+5 | 105+2"); }

TEST(Packer, ManyRowsStayInOrder) {
  const PackedRows rows = [] {
    Packer packer(Packing::kFirstFit, 10, 0);
    for (int64_t i = 0; i < 500; ++i) packer.Add(i * 100, 6);
    return packer.Finish();
  }();
  ASSERT_EQ(rows.rows(), 500);
  for (size_t r = 0; r < 500; ++r) EXPECT_EQ(rows.spans[r].begin, static_cast<int64_t>(r) * 100);
}

TEST(Packing, Names) {
  EXPECT_EQ(ParsePacking("first_fit"), Packing::kFirstFit);
  EXPECT_THROW(ParsePacking("best_fit"), Error);
}

}  // namespace
}  // namespace fathom
