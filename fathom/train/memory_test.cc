#include "fathom/train/memory.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "fathom/base/error.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

RunConfig Flags(std::vector<std::string> words) {
  words.insert(words.end(), {"steps=1", "base_output_directory=unused", "run_name=unused"});
  return RunConfig::Resolve(words);
}

std::map<std::string, int64_t> Table(const ModelConfig& model, const TrainOptions& options) {
  std::map<std::string, int64_t> table;
  for (const MemoryRow& row : TrainMemory(model, options)) table[row.what] = row.bytes;
  return table;
}

// One memory under two names counts once.
int64_t BytesOf(DecoderParams& params) {
  int64_t bytes = 0;
  std::set<const std::byte*> seen;
  for (const NamedWeight& w : ListParams(params)) {
    if (seen.insert(w.weight->value.view().raw()).second) bytes += w.weight->value.NumBytes();
  }
  return bytes;
}

int64_t BytesOf(const Optimizer& optimizer) {
  int64_t bytes = 0;
  for (const auto& moments : optimizer.moments()) bytes += moments.m.NumBytes() + moments.v.NumBytes();
  return bytes;
}

int64_t BytesOfCopies(const Optimizer& optimizer) {
  int64_t bytes = 0;
  for (const OptimizerParam& p : optimizer.params()) bytes += p.bf16_copy.empty() ? 0 : p.bf16_copy.NumBytes();
  return bytes;
}

// What the table says is what a session has.
void ExpectExact(const std::vector<std::string>& flags) {
  std::vector<std::string> words = {"model_name=deepseek3-tiny", "per_device_batch_size=2", "max_target_length=32"};
  words.insert(words.end(), flags.begin(), flags.end());
  const RunConfig config = Flags(words);
  const TrainOptions options = ReadTrainOptions(config);
  LoadedModel model = LoadModel(config, options, {});
  auto table = Table(model.config, options);
  TrainSession session(model.config, options, std::move(model.params));
  EXPECT_EQ(table["parameters"], BytesOf(session.params()));
  EXPECT_EQ(table["bf16 copy"], BytesOfCopies(session.optimizer()));
  EXPECT_EQ(table["gradients"], BytesOf(session.grads()));
  EXPECT_EQ(table["moments"], BytesOf(session.optimizer()));
  EXPECT_GT(table["activations"], 0);
  EXPECT_GT(table["scratch"], 0);
}

TEST(TrainMemory, IsWhatASessionTakes) {
  ExpectExact({"dtype=float32"});
  ExpectExact({"dtype=bfloat16"});
  ExpectExact({"dtype=bfloat16", "weight_dtype=bfloat16", "mu_dtype=bfloat16"});
  ExpectExact({"dtype=bfloat16", "mtp_num_layers=1"});
  ExpectExact({"dtype=bfloat16", "mtp_num_layers=1", "mtp_own_head=true"});
  ExpectExact({"opt_type=sgd", "dtype=float32"});
  ExpectExact({"dtype=float32", "trainable_parameters_mask=.*mlp.*"});
}

// 671B parameters, without allocating them.
TEST(TrainMemory, LargeModel) {
  const RunConfig config = Flags({"model_name=deepseek3-671b", "per_device_batch_size=1", "max_target_length=4096"});
  auto table = Table(ModelFromFlags(config), ReadTrainOptions(config));
  EXPECT_NEAR(static_cast<double>(table["parameters"]), 4 * 671.03e9, 1e9);
  EXPECT_NEAR(static_cast<double>(table["moments"]), 8 * 671.03e9, 1e9);
}

TEST(TrainMemory, RematKeepsLess) {
  const auto kept = [](const std::string& policy) {
    const RunConfig config =
        Flags({"model_name=deepseek3-671b", "per_device_batch_size=1", "max_target_length=512", "remat_policy=" + policy});
    return Table(ModelFromFlags(config), ReadTrainOptions(config))["activations"];
  };
  EXPECT_LT(kept("full"), kept("minimal"));
  EXPECT_LT(kept("minimal"), kept("none"));
}

}  // namespace
}  // namespace fathom
