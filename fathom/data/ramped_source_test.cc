#include "fathom/data/ramped_source.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// Batches of rows that are numbered through: ids are the row's number, its second half is padding.
class Numbered final : public BatchSource {
 public:
  Numbered(int64_t rows, int64_t batches) : rows_(rows), batches_(batches) {}
  bool Next(Batch* batch) override {
    batch->Clear(rows_, 4);
    if (given_ >= batches_) return false;
    for (int64_t row = 0; row < rows_; ++row) {
      const auto id = static_cast<int32_t>(given_ * rows_ + row);
      const std::vector<int32_t> ids(4, id), targets(4, id + 1);
      batch->AddSegment(row * 4, 2, ids.data(), targets.data(), 1);
    }
    ++given_;
    return true;
  }
  Json State() const override { return given_; }
  void Restore(const Json& state) override { given_ = state.get<int64_t>(); }
  void Reset() override { given_ = 0; }

 private:
  int64_t rows_, batches_, given_ = 0;
};

constexpr RampRule kRule = {.first = 2, .increment = 1, .last = 4, .samples = 10};  // five rows of two, then five of three

std::vector<int64_t> Sizes(const RampRule& rule, int64_t steps) {
  std::vector<int64_t> sizes;
  for (int64_t step = 0; step < steps; ++step) sizes.push_back(RampedRows(rule, step));
  return sizes;
}

TEST(RampedRows, GrowsWhenASizeHasHadItsShare) {
  EXPECT_EQ(Sizes(kRule, 7), (std::vector<int64_t>{2, 2, 2, 3, 3, 4, 4}));
  EXPECT_EQ(Sizes({.first = 4, .increment = 4, .last = 12, .samples = 16}, 5), (std::vector<int64_t>{4, 4, 8, 12, 12}));
}

TEST(RampedRows, RefusesWhatCannotBe) {
  for (const RampRule& rule :
       {RampRule{4, 1, 4, 9}, RampRule{1, 2, 4, 9}, RampRule{0, 1, 4, 9}, RampRule{1, 0, 4, 9}, RampRule{1, 1, 4, 0}})
    EXPECT_THROW(CheckRamp(rule), Error);
}

// Every row once and in order, whatever the batches.
TEST(RampedSource, HandsOutTheSameRows) {
  RampedSource source(kRule, std::make_unique<Numbered>(4, 5));
  Batch batch;
  int32_t next = 0;
  std::vector<int64_t> sizes;
  while (source.Next(&batch)) {
    sizes.push_back(batch.rows);
    ASSERT_EQ(std::ssize(batch.segments), batch.rows);
    EXPECT_EQ(batch.target_count, 2 * batch.rows);
    EXPECT_EQ(std::ssize(batch.ids), batch.tokens());
    for (int64_t row = 0; row < batch.rows; ++row, ++next) {
      EXPECT_EQ(batch.segments[static_cast<size_t>(row)], (TokenRange{4 * row, 4 * row + 2}));
      EXPECT_EQ(batch.ids[static_cast<size_t>(4 * row)], next);
      EXPECT_EQ(batch.targets[static_cast<size_t>(4 * row + 1)], next + 1);
      EXPECT_EQ(batch.positions[static_cast<size_t>(4 * row + 1)], 1);
      EXPECT_EQ(batch.weights[static_cast<size_t>(4 * row + 2)], 0);
    }
  }
  EXPECT_EQ(sizes, (std::vector<int64_t>{2, 2, 2, 3, 3, 4, 4}));
  EXPECT_EQ(next, 20);
}

TEST(RampedSource, GoesOnFromEveryStep) {
  for (int64_t stop = 0; stop < 7; ++stop) {
    RampedSource whole(kRule, std::make_unique<Numbered>(4, 5)), resumed(kRule, std::make_unique<Numbered>(4, 5));
    Batch a, b;
    for (int64_t step = 0; step < stop; ++step) whole.Next(&a);
    resumed.Restore(whole.State());
    for (bool more = true; more;) {
      more = whole.Next(&a);
      ASSERT_EQ(resumed.Next(&b), more) << stop;
      if (more) {
        EXPECT_EQ(a.ids, b.ids) << stop;
      }
    }
  }
  RampedSource source(kRule, std::make_unique<Numbered>(4, 5));
  EXPECT_THROW(source.Restore(Json::object()), Error);
}

// Two ranks get together what one gets, and nothing twice; behind the end of the data there is padding.
TEST(RampedSource, RanksDivideEachBatch) {
  const RampRule whole = {.first = 2, .increment = 2, .last = 4, .samples = 8};
  RampRule first = whole, second = whole;
  first.ranks = second.ranks = 2;
  second.rank = 1;
  RampedSource one(whole, std::make_unique<Numbered>(4, 4)), a(first, std::make_unique<Numbered>(4, 4)),
      b(second, std::make_unique<Numbered>(4, 4));
  for (int step = 0; step < 6; ++step) {
    Batch all, part_a, part_b;
    ASSERT_EQ(one.Next(&all), a.Next(&part_a));
    b.Next(&part_b);
    ASSERT_EQ(part_a.rows, RampedRows(whole, step) / 2);
    std::vector<int32_t> ids = part_a.ids;
    ids.insert(ids.end(), part_b.ids.begin(), part_b.ids.end());
    ids.resize(all.ids.size());
    EXPECT_EQ(ids, all.ids) << step;
    EXPECT_EQ(part_a.target_count + part_b.target_count, all.target_count) << step;
    EXPECT_EQ(a.State(), b.State());
  }
}

}  // namespace
}  // namespace fathom
