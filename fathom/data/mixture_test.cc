#include "fathom/data/mixture.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/data/text.h"
#include "fathom/parallel/test_threads.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

std::vector<int32_t> Bytes(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

class Mixture : public testing::Test {
 protected:
  // Two sets: documents of one letter each, a and b.
  void SetUp() override {
    for (const char letter : {'a', 'b'}) {
      std::string text;
      for (int i = 0; i < 20; ++i) text += "{\"text\": \"" + std::string(static_cast<size_t>(4 + i % 3), letter) + "\"}\n";
      WriteFileAtomically(folder_.path() / (std::string(1, letter) + ".jsonl"), text);
    }
  }
  MixtureSource Make(int64_t rows, int rank = 0, int ranks = 1, int64_t epochs = 0, const Comm& host = {},
                     const EncodeFunction& encode = Bytes) const {
    std::vector<std::unique_ptr<BatchSource>> sources;
    for (const char* name : {"a.jsonl", "b.jsonl"}) {
      TextConfig config;
      config.stream.dataset_path = (folder_.path() / name).string();
      config.rows = 1;
      config.length = 8;
      config.packing = Packing::kNone;
      config.epochs = epochs;
      config.host = host;
      sources.push_back(std::make_unique<TextSource>(config, encode));
    }
    return {{rows, 8, rank, ranks}, std::move(sources), {0.75, 0.25}};
  }
  static std::string Letters(const Batch& batch) {
    std::string letters;
    for (int64_t r = 0; r < batch.rows; ++r) letters += static_cast<char>(batch.ids[static_cast<size_t>(r * batch.length)]);
    return letters;
  }
  TemporaryFolder folder_;
};

TEST_F(Mixture, SharesHoldAtAnyTime) {
  MixtureSource source = Make(4);
  Batch batch;
  for (int step = 0; step < 10; ++step) {
    ASSERT_TRUE(source.Next(&batch));
    EXPECT_EQ(std::ranges::count(Letters(batch), 'b'), 1) << Letters(batch);
    EXPECT_EQ(batch.target_count, std::ranges::count(batch.weights, 1.0f));
    EXPECT_EQ(batch.segments.size(), 4u);
    EXPECT_EQ(batch.segments[3].begin, 24);
  }
}

TEST_F(Mixture, GoesOnWhereItWas) {
  MixtureSource whole = Make(3), parts = Make(3);
  Batch want, got;
  for (int step = 0; step < 7; ++step) ASSERT_TRUE(whole.Next(&want));
  const Json state = whole.State();
  ASSERT_TRUE(whole.Next(&want));
  parts.Restore(state);
  ASSERT_TRUE(parts.Next(&got));
  EXPECT_EQ(got.ids, want.ids);
  EXPECT_THROW(parts.Restore(Json::object()), Error);
}

TEST_F(Mixture, RanksDivideTheBatch) {
  MixtureSource whole = Make(4), first = Make(2, 0, 2), second = Make(2, 1, 2);
  Batch all, a, b;
  for (int step = 0; step < 5; ++step) {
    ASSERT_TRUE(whole.Next(&all) && first.Next(&a) && second.Next(&b));
    a.ids.insert(a.ids.end(), b.ids.begin(), b.ids.end());
    EXPECT_EQ(a.ids, all.ids);
  }
}

TEST_F(Mixture, EndsWithTheFirstOfItsSources) {
  MixtureSource source = Make(1, 0, 1, 1);
  Batch batch;
  int rows = 0;
  while (source.Next(&batch)) ++rows;
  EXPECT_GE(rows, 20);
  EXPECT_LE(rows, 28);
}

TEST(ParseMixture, PathsWithWeights) {
  const auto parts = ParseMixture("a.txt:0.7,x:y/b.jsonl:3", "f");
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].path, "a.txt");
  EXPECT_DOUBLE_EQ(parts[0].weight, 0.7);
  EXPECT_EQ(parts[1].path, "x:y/b.jsonl");
  EXPECT_TRUE(ParseMixture("a.txt,b:c", "f").empty());
  EXPECT_THROW(ParseMixture("a.txt:0.7,b", "f"), Error);
  EXPECT_THROW(ParseMixture("a.txt:-1,b:1", "f"), Error);
}

// Ranks 0 and 1 of one machine, rank 2 of another.
Comm HostOf(const Comm& world) { return world.Part(world.rank() < 2 ? std::vector{0, 1} : std::vector{2}); }

TEST_F(Mixture, OneRankOfAMachineTokenisesForAll) {
  constexpr int kRanks = 3, kSteps = 9;
  MixtureSource whole = Make(2 * kRanks);
  std::vector<Batch> expected(kSteps);
  std::vector<Json> states;
  for (Batch& batch : expected) {
    ASSERT_TRUE(whole.Next(&batch));
    states.push_back(whole.State());
  }
  RunRanks(kRanks, [&](const Comm& world) {
    std::atomic<int> calls = 0;
    const auto count = [&calls](std::string_view text) { return ++calls, Bytes(text); };
    const auto check = [&](MixtureSource& source, int from) {
      Batch batch;
      for (int i = from; i < kSteps; ++i) {
        const auto step = static_cast<size_t>(i);
        ASSERT_TRUE(source.Next(&batch));
        const auto begin = expected[step].ids.begin() + 2 * 8 * world.rank();
        EXPECT_EQ(batch.ids, std::vector<int32_t>(begin, begin + 2 * 8)) << "rank " << world.rank() << ", step " << i;
        EXPECT_EQ(source.State(), states[step]);
      }
      EXPECT_EQ(source.counts().read, whole.counts().read);
    };
    {
      MixtureSource source = Make(2, world.rank(), kRanks, 0, HostOf(world), count);
      check(source, 0);
      EXPECT_EQ(calls > 0, world.rank() != 1);
      EXPECT_EQ(source.bytes_tokenised(), world.rank() == 1 ? 0 : whole.bytes_tokenised());
    }
    MixtureSource again = Make(2, world.rank(), kRanks, 0, HostOf(world), count);
    again.Restore(states[3]);
    Batch batch;
    ASSERT_TRUE(again.Next(&batch));
    EXPECT_EQ(again.State(), states[4]);
  });
  EXPECT_GT(whole.bytes_tokenised(), 100);
}

TEST_F(Mixture, AFaultThatOneRankFindsAllOfItsMachineThrow) {
  WriteFileAtomically(folder_.path() / "b.jsonl", "{\"text\": \"bbbb\"}\n{\"text\": 5}\n");
  RunRanks(2, [&](const Comm& world) {
    MixtureSource source = Make(4, world.rank(), 2, 0, world);
    std::string message;
    try {
      for (Batch batch; source.Next(&batch);) {
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInput);
      message = error.what();
    }
    EXPECT_NE(message.find("b.jsonl, line 2"), message.npos) << "rank " << world.rank() << ": " << message;
  });
}

}  // namespace
}  // namespace fathom
