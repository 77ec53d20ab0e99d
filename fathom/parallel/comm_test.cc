#include "fathom/parallel/comm.h"

#include <gtest/gtest.h>

#include <numeric>

#include "fathom/base/error.h"
#include "fathom/base/plan_scope.h"
#include "fathom/parallel/host.h"
#include "fathom/parallel/test_threads.h"
#include "fathom/tensor/tensor.h"

namespace fathom {
namespace {

float Value(int rank, int64_t i) { return static_cast<float>(rank + 1) + 0.25f * static_cast<float>(i % 7); }

TEST(Comm, OneRankLeavesEverythingAsItIs) {
  const Comm one;
  double x = 3;
  one.AllSum(std::span(&x, 1));
  one.Barrier();
  EXPECT_EQ(x, 3);
  EXPECT_EQ(one.size(), 1);
  EXPECT_EQ(one.Part({0}).size(), 1);
}

TEST(Comm, SumsFloatsOfSeveralViewsAcrossBuckets) {
  for (const int n : {2, 3}) {
    for (const int64_t large : {int64_t{1}, int64_t{5}, int64_t{1000}, (int64_t{1} << 22) + 3}) {
      RunRanks(n, [&](const Comm& world) {
        Tensor a(DType::kF32, {large}), b(DType::kF32, {2, 3});
        for (Tensor* t : {&a, &b}) {
          for (int64_t i = 0; i < t->NumElements(); ++i) t->mutable_data<float>()[i] = Value(world.rank(), i);
        }
        const std::array list = {a.mutable_view(), b.mutable_view()};
        world.AllSum(list);
        for (Tensor* t : {&a, &b}) {
          for (int64_t i = 0; i < t->NumElements(); ++i) {
            float want = 0;
            for (int r = 0; r < n; ++r) want += Value(r, i);
            ASSERT_EQ(t->data<float>()[i], want) << n << " ranks, element " << i << " of " << t->NumElements();
          }
        }
        EXPECT_GT(world.traffic().bytes_sent, 0);
      });
    }
  }
}

TEST(Comm, SumsAndMaximaOfLists) {
  RunRanks(3, [](const Comm& world) {
    std::vector<double> x = {1.5 * world.rank(), -1.0 * world.rank()}, y = x;
    world.AllSum(std::span(x));
    world.AllMax(std::span(y));
    EXPECT_EQ(x, (std::vector<double>{4.5, -3}));
    EXPECT_EQ(y, (std::vector<double>{3, 0}));
    std::vector<int64_t> n = {int64_t{1} << 40};
    world.AllSum(std::span(n));
    EXPECT_EQ(n[0], 3 * (int64_t{1} << 40));
  });
}

TEST(Comm, AllToAllTakesUnequalSizes) {
  RunRanks(3, [](const Comm& world) {
    const auto count = [](int from, int to) { return static_cast<size_t>((2 * from + to) % 3); };
    std::vector<std::vector<int32_t>> out(3), in(3);
    std::vector<std::span<const std::byte>> to;
    std::vector<std::span<std::byte>> from;
    for (int r = 0; r < 3; ++r) {
      out[static_cast<size_t>(r)].assign(count(world.rank(), r), 10 * world.rank() + r);
      in[static_cast<size_t>(r)].resize(count(r, world.rank()));
    }
    for (const auto& x : out) to.push_back(BytesOf(std::span(x)));
    for (auto& x : in) from.push_back(BytesOf(std::span(x)));
    world.AllToAll(to, from);
    for (int r = 0; r < 3; ++r) EXPECT_EQ(in[static_cast<size_t>(r)], std::vector<int32_t>(count(r, world.rank()), 10 * r + world.rank()));
  });
}

TEST(Comm, GathersTextsOfUnequalLengths) {
  RunRanks(3, [](const Comm& world) {
    const std::string mine(static_cast<size_t>(2 * world.rank()), static_cast<char>('a' + world.rank()));
    EXPECT_EQ(AllGatherText(world, mine), (std::vector<std::string>{"", "bb", "cccc"}));
  });
  EXPECT_EQ(AllGatherText({}, "x"), std::vector<std::string>{"x"});
}

TEST(Comm, SplitsAndCountsEachGroupsTrafficApart) {
  RunRanks(6, [](const Comm& world) {
    const Comm part = world.Part(world.rank() % 2 == 0 ? std::vector{0, 2, 4} : std::vector{1, 3, 5});
    ASSERT_EQ(part.size(), 3);
    EXPECT_EQ(part.rank(), world.rank() / 2);
    EXPECT_EQ(part.traffic().bytes_sent, 0);
    double sum = world.rank();
    part.AllSum(std::span(&sum, 1));
    EXPECT_EQ(sum, world.rank() % 2 == 0 ? 0 + 2 + 4 : 1 + 3 + 5);
    EXPECT_EQ(part.traffic().bytes_sent, 16);
    int32_t token = part.rank();
    if (part.rank() == 0) part.Send(2, BytesOf(std::span<const int32_t>(&token, 1)));
    if (part.rank() == 2) part.Receive(0, BytesOf(std::span(&token, 1)));
    EXPECT_EQ(token, part.rank() == 2 ? 0 : part.rank());
  });
}

// What the second rank takes first was sent last, in another channel; its traffic is counted apart until it is added.
TEST(Comm, ChannelsDoNotMix) {
  RunRanks(2, [](const Comm& world) {
    const Comm other = world.InChannel(Channel::kLayers);
    int32_t a = 1, b = 2;
    if (world.rank() == 0) {
      world.Send(1, BytesOf(std::span<const int32_t>(&a, 1)));
      other.Send(1, BytesOf(std::span<const int32_t>(&b, 1)));
      EXPECT_EQ(world.traffic().bytes_sent, 4);
      world.AddTraffic(other.traffic());
      EXPECT_EQ(world.traffic().bytes_sent, 8);
    } else {
      other.Receive(0, BytesOf(std::span(&a, 1)));
      world.Receive(0, BytesOf(std::span(&b, 1)));
      EXPECT_EQ(a, 2);
      EXPECT_EQ(b, 1);
    }
  });
}

TEST(Comm, NothingTravelsWhileMemoryIsPlanned) {
  RunRanks(2, [](const Comm& world) {
    const PlanScope plan(1);
    double x = world.rank();
    world.AllSum(std::span(&x, 1));
    EXPECT_EQ(x, world.rank());
    EXPECT_EQ(world.traffic().bytes_sent, 0);
  });
}

// What a call of every kind sends, of `world` and a part of it.
std::array<Traffic, 2> CallAll(const Comm& world) {
  const Comm part = world.Part(world.rank() % 2 == 0 ? std::vector{0, 2} : std::vector{1, 3});
  Tensor sums(DType::kF32, {(int64_t{1} << 22) + 5});
  world.AllSum(sums.mutable_view());
  std::vector<double> list(3);
  part.AllSum(std::span(list));
  part.AllMax(std::span(list));
  world.Barrier();
  std::vector<int32_t> mine(static_cast<size_t>(world.rank() + 1)), other(8);
  std::vector<std::span<const std::byte>> to(4, BytesOf(std::span<const int32_t>(mine)));
  std::vector<std::span<std::byte>> from;
  for (size_t r = 0; r < 4; ++r) from.push_back(BytesOf(std::span(other).first(r + 1)));
  world.AllToAll(to, from);
  if (part.rank() == 0) part.Send(1, BytesOf(std::span<const int32_t>(mine)));
  if (part.rank() == 1) part.Receive(0, BytesOf(std::span(other).first(static_cast<size_t>(world.rank() - 1))));
  return {world.traffic(), part.traffic()};
}

TEST(Comm, APlannedGroupCountsWhatAGroupSends) {
  RunRanks(4, [](const Comm& world) {
    const auto real = CallAll(world);
    const PlanScope plan(1);
    const auto planned = CallAll(Comm::Planned(world.rank(), 4, 2));
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(planned[i].bytes_sent, real[i].bytes_sent) << i;
      EXPECT_EQ(planned[i].messages, real[i].messages) << i;
    }
    EXPECT_EQ(planned[1].far_bytes, planned[1].bytes_sent);  // ranks 0 and 1 are of one host, 2 and 3 of another
    EXPECT_LT(planned[0].far_bytes, planned[0].bytes_sent);
  });
}

TEST(Host, WhatTheFirstRankHasOrThrowsAllOfThemDo) {
  RunRanks(3, [](const Comm& world) {
    const Comm host = HostPart(world);
    ASSERT_EQ(host.size(), 3);
    int calls = 0;
    EXPECT_EQ(TextFromFirst(host, [&] { return ++calls, std::string("a text"); }), "a text");
    EXPECT_EQ(ValueFromFirst<int64_t>(host, [&] { return ++calls, int64_t{-7}; }), -7);
    EXPECT_EQ(calls, host.rank() == 0 ? 2 : 0);
    std::string message;
    try {
      DoOnFirst(host, [] { Throw(ErrorCode::kInput, "a bad file"); });
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInput);
      message = error.what();
    }
    EXPECT_EQ(message, "a bad file");
  });
}

TEST(Host, SharesMemoryThatHasNoCopyAndNoHandleLeft) {
  SharedMemory::Handle handle;
  RunRanks(2, [&](const Comm& host) {
    for (const bool any : {true, false}) {
      const auto memory = MemoryFromFirst(host, [&] {
        const auto made = any ? SharedMemory::Create(5000) : nullptr;
        if (made) made->bytes()[4999] = std::byte{42};
        if (made) handle = made->handle();
        return made;
      });
      ASSERT_EQ(memory != nullptr, any);
      if (!any) continue;
      EXPECT_EQ(memory->bytes().size(), 5000u);
      EXPECT_EQ(memory->bytes()[4999], std::byte{42});
      EXPECT_EQ(memory->bytes()[0], std::byte{0});
      host.Barrier();
    }
  });
  EXPECT_THROW(SharedMemory::Open(handle), Error);
}

}  // namespace
}  // namespace fathom
