#include "fathom/parallel/local_comm.h"

#include <gtest/gtest.h>

#include <vector>

namespace fathom {
namespace {

TEST(LocalComm, OneRankKeepsItsValues) {
  LocalComm comm;
  EXPECT_EQ(comm.rank(), 0);
  EXPECT_EQ(comm.size(), 1);
  std::vector<float> x = {1, 2, 3};
  comm.AllReduceSum(ViewOf(x.data(), {3}));
  comm.Broadcast(ViewOf(x.data(), {3}), 0);
  comm.Barrier();
  EXPECT_EQ(x, (std::vector<float>{1, 2, 3}));
}

TEST(LocalComm, GatherAndScatterCopy) {
  LocalComm comm;
  const std::vector<double> x = {1, 2, 3, 4};
  std::vector<double> gathered(4), scattered(4);
  comm.AllGather(ViewOf(x.data(), {2, 2}), ViewOf(gathered.data(), {2, 2}));
  comm.ReduceScatterSum(ViewOf(x.data(), {2, 2}), ViewOf(scattered.data(), {2, 2}));
  EXPECT_EQ(gathered, x);
  EXPECT_EQ(scattered, x);
}

TEST(LocalComm, AllOkIsTheRanksOwn) {
  LocalComm comm;
  EXPECT_TRUE(comm.AllOk(true));
  EXPECT_FALSE(comm.AllOk(false));
}

TEST(LocalCommDeathTest, ShapesMustAgree) {
  LocalComm comm;
  std::vector<float> x(4), y(3);
  EXPECT_DEATH(comm.AllGather(ViewOf(x.data(), {4}), ViewOf(y.data(), {3})), "into");
}

}  // namespace
}  // namespace fathom
