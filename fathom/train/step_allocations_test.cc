// A step asks the system for no memory after the first one. The allocation functions of the whole program are replaced here, so this is a
// test program of its own; it counts what fathom's code asks for, but not what oneDNN and OpenMP do inside a call.
#include <dlfcn.h>
#include <execinfo.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "fathom/base/threads.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

// glibc's own, under the names that stay free when the usual ones are replaced.
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* old, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
}

namespace {

std::atomic<bool> g_counting = false;
std::atomic<int> g_allocations = 0;
thread_local bool t_looking = false;

// Is the innermost caller outside the standard libraries part of this program?
bool CalledByFathom() {
  void* frames[16];
  const int depth = backtrace(frames, 16);
  Dl_info self{}, caller{};
  dladdr(reinterpret_cast<void*>(&CalledByFathom), &self);
  for (int i = 3; i < depth; ++i) {  // behind this function, Count and malloc
    if (dladdr(frames[i], &caller) == 0 || std::strstr(caller.dli_fname, "libstdc++") || std::strstr(caller.dli_fname, "libc.so")) continue;
    return caller.dli_fbase == self.dli_fbase;
  }
  return false;
}

[[gnu::noinline]] void Count() {
  if (!g_counting || t_looking) return;
  t_looking = true;
  if (CalledByFathom()) ++g_allocations;
  t_looking = false;
}

}  // namespace

extern "C" {
void* malloc(size_t bytes) {
  Count();
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  Count();
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, size_t bytes) {
  Count();
  return __libc_realloc(old, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) {
  Count();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** result, size_t alignment, size_t bytes) {
  Count();
  *result = __libc_memalign(alignment, bytes);
  return *result == nullptr ? ENOMEM : 0;
}
}

namespace fathom {
namespace {

// Documents of different lengths, padding at the ends of rows.
Batch MixedBatch(int64_t rows, int64_t length, int64_t vocab) {
  Batch batch;
  batch.Clear(rows, length);
  std::vector<int32_t> tokens(static_cast<size_t>(length) + 1);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % static_cast<size_t>(vocab));
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t first = length / 2 - row;
    batch.AddSegment(row * length, first, tokens.data(), tokens.data() + 1, 1);
    batch.AddSegment(row * length + first, length / 3, tokens.data(), tokens.data() + 1, 1);
  }
  return batch;
}

// Allocations of the third of three steps of two micro-batches each.
int AllocationsOfThirdStep(std::vector<std::string> flags, const std::string& checkpoint) {
  flags.insert(flags.end(), {"per_device_batch_size=2", "max_target_length=24", "steps=3"});
  const RunConfig config = RunConfig::Resolve(flags);
  const TrainOptions options = ReadTrainOptions(config);
  LoadedModel loaded = LoadModel(config, options, std::filesystem::path(FATHOM_TEST_DATA) / "maxtext" / checkpoint);
  TrainSession session(loaded.config, options, std::move(loaded.params));
  const Batch batch = MixedBatch(4, 24, loaded.config.vocab_size);
  g_allocations = 0;
  for (int step = 0; step < 3; ++step) {
    g_counting = step == 2;
    session.Step(batch, 0);  // experts keep their tokens: a native product of another size would have a handle of its own made
  }
  g_counting = false;
  return g_allocations;
}

class StepAllocations : public testing::Test {
 protected:
  void SetUp() override {
    SetThreads(HasNativeBF16() ? 1 : 2);  // each thread keeps handles of its own to native products, from when it first runs one
    void* frame;
    backtrace(&frame, 1);  // the first call loads a library
  }
};

TEST_F(StepAllocations, CounterSeesOurs) {
  g_allocations = 0;
  g_counting = true;
  std::vector<int> ours(100);
  std::string text(static_cast<size_t>(ours.size()), 'x');
  g_counting = false;
  EXPECT_EQ(g_allocations, 2);
}

TEST_F(StepAllocations, V3) {
  EXPECT_EQ(AllocationsOfThirdStep({"dtype=float32", "mtp_num_layers=1"}, "v3"), 0);
  EXPECT_EQ(AllocationsOfThirdStep({"dtype=float32", "mtp_num_layers=1", "remat_policy=full", "load_balance_loss_weight=0.01",
                                    "routed_bias_update_rate=0.001"},
                                   "v3"),
            0);
  EXPECT_EQ(AllocationsOfThirdStep({"dtype=bfloat16", "mtp_num_layers=1"}, "v3"), 0);
  EXPECT_EQ(AllocationsOfThirdStep({"dtype=float32", "remat_policy=none", "sparse_matmul=false", "capacity_factor=1.0"}, "v3"), 0);
}

TEST_F(StepAllocations, V32) {
  const std::string indexer = "indexer_loss_scaling_factor=0.01";
  EXPECT_EQ(AllocationsOfThirdStep({"dtype=float32", indexer, "indexer_sparse_training=true"}, "v32"), 0);
  EXPECT_EQ(AllocationsOfThirdStep({"dtype=bfloat16", indexer, "indexer_sparse_training=true", "remat_policy=full"}, "v32"), 0);
  EXPECT_EQ(AllocationsOfThirdStep({"dtype=float32", indexer, "indexer_sparse_training=false"}, "v32"), 0);
}

}  // namespace
}  // namespace fathom
