// Which threads memory is first touched by, and so on which node its pages lie where a machine has several: each thread's own page faults
// are counted while it is made.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <vector>

#include "fathom/base/threads.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/kernels/norm/rms_norm.h"
#include "fathom/layers/cache.h"
#include "fathom/model/load.h"
#include "fathom/model/tiny_config.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

constexpr int kThreads = 4;

std::vector<double> FaultsSoFar() {
  std::vector<double> faults(kThreads);
#pragma omp parallel num_threads(kThreads)
  {
    rusage usage{};
    ::getrusage(RUSAGE_THREAD, &usage);
    faults[static_cast<size_t>(omp_get_thread_num())] = static_cast<double>(usage.ru_minflt);
  }
  return faults;
}

class FirstTouch : public testing::Test {
 protected:
  void SetUp() override {
    ::mallopt(M_MMAP_THRESHOLD, 1 << 16);  // memory that was given back has pages already
    SetThreads(kThreads);
    FaultsSoFar();
  }
  void TearDown() override { SetThreads(0); }
  // Every thread has its quarter of the page faults in f, give or take a fifth.
  static void ExpectShared(const char* what, const std::function<void()>& f) {
    const std::vector<double> before = FaultsSoFar();
    f();
    std::vector<double> shares = FaultsSoFar();
    std::ranges::transform(shares, before, shares.begin(), std::minus());
    const double all = std::accumulate(shares.begin(), shares.end(), 0.0);
    EXPECT_GT(all, 16) << what;
    for (double& share : shares) {
      EXPECT_GT(share, 0.8 * all / kThreads) << what << ": " << testing::PrintToString(shares);
      EXPECT_LT(share, 1.2 * all / kThreads) << what << ": " << testing::PrintToString(shares);
    }
  }
};

ModelConfig MiddlingConfig() {
  ModelConfig c = TinyConfig(ModelFamily::kV3, 4096);
  c.hidden_size = 512;
  c.moe_intermediate_size = 512;
  c.intermediate_size = 1024;
  return c;
}

TEST_F(FirstTouch, WeightsThatAreMade) {
  DecoderParams params;
  ExpectShared("weights", [&] { params = InitParams(MiddlingConfig(), 1, DType::kF32, false); });
}

TEST_F(FirstTouch, GradientsCopiesAndMoments) {
  const ModelConfig config = MiddlingConfig();
  TrainOptions options;
  options.rows = 1;
  options.length = 16;
  DecoderParams params = InitParams(config, 1, DType::kF32, false);
  std::unique_ptr<TrainSession> session;
  ExpectShared("a session", [&] { session = std::make_unique<TrainSession>(config, options, std::move(params)); });
}

TEST_F(FirstTouch, Caches) {
  ModelConfig config = MiddlingConfig();
  config.kv_lora_rank = 512;
  std::unique_ptr<CachePool> pool;
  ExpectShared("a cache", [&] { pool = std::make_unique<CachePool>(config, 4, 64, DType::kBF16); });
}

// By rows, as the kernels of every layer share them.
TEST_F(FirstTouch, Activations) {
  constexpr int64_t kTokens = 16384, kWidth = 1024;  // pages of an arena may be huge
  Arena arena(int64_t{1} << 30);
  Tensor h(DType::kF32, {kTokens, kWidth}), w(DType::kF32, {kWidth});
  ExpectShared("a norm's output", [&] { RmsNormForward(h, w, 1e-6f, arena.Alloc(DType::kF32, {kTokens, kWidth}), View()); });
  ExpectShared("a cast", [&] { Cast(h, arena.Alloc(DType::kF32, {kTokens, kWidth})); });
}

// Zeros of every step, and so what an update goes through: a thread has the same range of each.
TEST_F(FirstTouch, ZerosOfGradients) {
  Arena arena(int64_t{1} << 30);
  const std::vector<View> views = {arena.Alloc(DType::kF32, {12 << 20}), arena.Alloc(DType::kF32, {12 << 20})};
  ExpectShared("zeros", [&] { ZeroEach(views); });
}

}  // namespace
}  // namespace fathom
