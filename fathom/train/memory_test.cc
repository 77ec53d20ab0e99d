#include "fathom/train/memory.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>
#include <tuple>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/data/synthetic.h"
#include "fathom/parallel/test_threads.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

RunConfig Flags(std::vector<std::string> words) {
  words.insert(words.end(), {"steps=1", "base_output_directory=unused", "run_name=unused"});
  return RunConfig::Resolve(words);
}

TrainPlan PlanOf(const RunConfig& config, int threads) {
  const TrainOptions options = ReadTrainOptions(config);
  return PlanTraining(options, threads, [&] { return LoadModel(config, options, {}); });
}

std::map<std::string, int64_t> Table(const RunConfig& config, int threads = 2) {
  std::map<std::string, int64_t> table;
  for (const MemoryRow& row : PlanOf(config, threads).memory) table[row.what] = row.bytes;
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

// A V3 with a sixteenth of its vocabulary and two layers; with an indexer, one of V3.2.
std::vector<std::string> Small(std::vector<std::string> more, bool indexer = false) {
  std::vector<std::string> words = {
      "model_name=deepseek3-tiny", "override_model_config=true", "base_num_decoder_layers=2", "first_num_dense_layers=1",
      "vocab_size=8192",           "qk_nope_head_dim=32",        "qk_rope_head_dim=16",       "v_head_dim=32",
      "per_device_batch_size=2",   "max_target_length=160"};
  if (indexer) words.insert(words.end(), {"use_indexer=true", "indexer_n_heads=4", "indexer_head_dim=32", "indexer_topk=32"});
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// What the table says is what a session has.
void ExpectExact(const std::vector<std::string>& flags) {
  const RunConfig config = Flags(Small(flags));
  const TrainOptions options = ReadTrainOptions(config);
  auto table = Table(config);
  LoadedModel model = LoadModel(config, options, {});
  TrainSession session(model.config, options, std::move(model.params));
  EXPECT_EQ(table["parameters"], BytesOf(session.params()));
  EXPECT_EQ(table["bf16 copy"], BytesOfCopies(session.optimizer()));
  EXPECT_EQ(table["gradients"], BytesOf(session.grads()));
  EXPECT_EQ(table["moments"], BytesOf(session.optimizer()));
}

TEST(TrainMemory, IsWhatASessionTakes) {
  ExpectExact({"dtype=float32"});
  ExpectExact({"dtype=bfloat16"});
  ExpectExact({"dtype=bfloat16", "weight_dtype=bfloat16", "mu_dtype=bfloat16"});
  ExpectExact({"weight_dtype=bfloat16", "nu_dtype=bfloat16", "stochastic_rounding=true"});
  ExpectExact({"mu_dtype=bfloat16", "nu_dtype=bfloat16"});
  ExpectExact({"dtype=bfloat16", "mtp_num_layers=1"});
  ExpectExact({"dtype=bfloat16", "mtp_num_layers=1", "mtp_own_head=true"});
  ExpectExact({"opt_type=sgd", "dtype=float32"});
  ExpectExact({"dtype=float32", "trainable_parameters_mask=.*mlp.*"});
}

// The arenas of a session after a real step, on real threads, over what the plan for so many threads says: full rows, as planned.
void ExpectTaken(const std::vector<std::string>& words, int threads) {
  const std::string what = fmt::format("{} threads, {}", threads, fmt::join(words, " "));
  const RunConfig config = Flags(words);
  const TrainOptions options = ReadTrainOptions(config);
  auto table = Table(config, threads);
  const int before = NumThreads();
  SetThreads(threads);
  LoadedModel model = LoadModel(config, options, {});
  TrainSession session(model.config, options, std::move(model.params));
  SyntheticSource source({options.rows, options.length, model.config.vocab_size, 7});
  Batch batch;
  ASSERT_TRUE(source.Next(&batch));
  session.Step(batch, 1e-3);
  if (options.eval_interval > 0) session.Evaluate(batch);
  SetThreads(before);
  const double factor = static_cast<double>(session.taken().scratch) / static_cast<double>(table["scratch"]);
  EXPECT_TRUE(factor > 0.97 && factor <= 1) << what << ": " << factor;
  EXPECT_EQ(session.taken().saved, table["activations"]) << what;
}

constexpr int kThreads[] = {1, 2, 8, 64, 128};

TEST(TrainMemory, IsWhatAStepTakes) {
  for (const int threads : kThreads) {
    for (const char* dtype : {"dtype=float32", "dtype=bfloat16"}) {
      ExpectTaken(Small({dtype, "remat_policy=full"}), threads);
      ExpectTaken(Small({dtype, "quantization=fp8_block"}), threads);
      ExpectTaken(Small({dtype, "mtp_num_layers=2", "mtp_loss_scaling_factor=0.3"}), threads);
    }
  }
}

TEST(TrainMemory, IsWhatAStepTakesUnderEveryPolicy) {
  for (const char* remat : {"remat_policy=full", "remat_policy=minimal", "remat_policy=none"}) {
    ExpectTaken(Small({remat, "load_balance_loss_weight=0.01"}), 2);
    ExpectTaken(Small({remat, "mtp_num_layers=1", "capacity_factor=1.25", "sparse_matmul=false"}), 2);
    ExpectTaken(Small({remat, "sparse_matmul=false"}), 8);
    ExpectTaken(Small({remat, "mtp_num_layers=1", "mtp_eval_target_module=1", "eval_interval=1"}), 2);
    ExpectTaken(Small({remat, "trainable_parameters_mask=.*mlp.*"}), 2);
    ExpectTaken(Small({remat, "use_qk_clip=true", "mtp_num_layers=1"}), 2);
  }
}

TEST(TrainMemory, IsWhatAStepOfSparseAttentionTakes) {
  for (const int threads : kThreads) {
    for (const char* dtype : {"dtype=float32", "dtype=bfloat16"}) {
      ExpectTaken(Small({dtype, "remat_policy=full"}, true), threads);
      ExpectTaken(Small({dtype, "indexer_loss_scaling_factor=0.5"}, true), threads);  // the warm-up
      ExpectTaken(Small({dtype, "indexer_loss_scaling_factor=0.5", "indexer_sparse_training=true"}, true), threads);
    }
  }
  ExpectTaken(Small({"mtp_num_layers=1", "indexer_loss_scaling_factor=0.5"}, true), 8);
  ExpectTaken(Small({"use_qk_clip=true"}, true), 8);
  ExpectTaken(Small({"compat=maxtext", "mtp_num_layers=1", "indexer_loss_scaling_factor=0.5"}, true), 2);
}

// What a step of real ranks sends and takes, over what a plan without them says. Every token asks all experts, so the rows that travel are
// known.
void ExpectPlannedOn(int ranks, std::vector<std::string> mesh_flags) {
  std::vector<std::string> words =
      Small({"num_experts_per_tok=16", "mtp_num_layers=1", "ici_fsdp_parallelism=1", "vocab_size=512", "max_target_length=32"});
  const std::string what = fmt::format("{}", fmt::join(mesh_flags, " "));
  words.insert(words.end(), mesh_flags.begin(), mesh_flags.end());
  const RunConfig config = Flags(words);
  const MeshSizes sizes = ReadMesh(config, ranks);
  RunRanks(ranks, [&](const Comm& world) {
    const TrainOptions options = ReadTrainOptions(config, Mesh(world, sizes));
    LoadedModel model = LoadModel(config, options, {});
    TrainSession session(model.config, options, std::move(model.params));
    const Batch batch = FullBatch(options.rows * options.accumulation, options.length);
    const auto sent = [&](Axis axis) { return options.mesh.comm(axis).traffic().bytes_sent; };
    std::array<int64_t, kAxes.size()> before;
    for (size_t i = 0; i < kAxes.size(); ++i) before[i] = sent(kAxes[i]);
    session.Step(batch, 1e-3);
    const TrainOptions planned = ReadTrainOptions(config, Mesh(Comm::Planned(world.rank(), ranks, 1), sizes));
    const TrainPlan plan = PlanTraining(planned, 1, [&] { return LoadModel(config, planned, {}); });
    for (size_t i = 0; i < kAxes.size(); ++i)
      EXPECT_EQ(plan.traffic[i].bytes_sent, sent(kAxes[i]) - before[i]) << what << ", " << AxisName(kAxes[i]) << ", rank " << world.rank();
    int64_t activations = 0;
    for (const MemoryRow& row : plan.memory) activations += row.what == "activations" || row.what == "scratch" ? row.bytes : 0;
    const double factor = static_cast<double>(session.taken().saved + session.taken().scratch) / static_cast<double>(activations);
    const bool dropless = options.mesh.size(Axis::kExpert) > 1;  // space for the rows of all ranks is kept, and not touched
    EXPECT_TRUE(factor > 0.9 && (dropless || factor < 1.1)) << what << ": " << factor;
  });
}

TEST(TrainMemory, AMeshIsPlannedWithoutItsRanks) {
  for (const char* axis : {"data", "fsdp", "expert", "tensor", "context", "pipeline"})
    ExpectPlannedOn(2, {fmt::format("ici_{}_parallelism=2", axis)});
  ExpectPlannedOn(3, {"ici_fsdp_parallelism=3", "gradient_accumulation_steps=3"});
  ExpectPlannedOn(4, {"ici_fsdp_parallelism=2", "ici_expert_parallelism=2"});
  ExpectPlannedOn(4, {"ici_tensor_parallelism=2", "ici_pipeline_parallelism=2"});
}

// 671B parameters, without allocating them.
TEST(TrainMemory, LargeModel) {
  const RunConfig config = Flags({"model_name=deepseek3-671b", "per_device_batch_size=1", "max_target_length=4096"});
  auto table = Table(config);
  EXPECT_NEAR(static_cast<double>(table["parameters"]), 4 * 671.03e9, 1e9);
  EXPECT_NEAR(static_cast<double>(table["moments"]), 8 * 671.03e9, 1e9);
}

// Without its files, as the hub has them: what is mapped, and adapters of known sizes, with gradients and moments.
TEST(TrainMemory, AdaptersBesideWhatIsNotHere) {
  // rows and columns of all matrices that take an adapter: attention, dense MLPs, shared experts
  constexpr int64_t kLite = 27 * (2048 + 3072 + 2048 + 576 + 512 + 4096 + 2048 + 2048) + 3 * (2048 + 10944) + 26 * 3 * (2048 + 2816);
  constexpr int64_t kV3 =
      61 * (7168 + 1536 + 1536 + 24576 + 7168 + 576 + 512 + 32768 + 16384 + 7168) + 3 * 3 * (7168 + 18432) + 58 * 3 * (7168 + 2048);
  for (const auto& [name, stored, ends] : {std::tuple("deepseek2-16b", 31.41e9, kLite), std::tuple("deepseek3-671b", 688.59e9, kV3)}) {
    const RunConfig config = Flags({fmt::format("model_name={}", name), "lora.enable_lora=true", "lora.lora_rank=16", "lora.lora_alpha=32",
                                    "per_device_batch_size=1", "max_target_length=1024"});
    const TrainPlan plan = PlanOf(config, 2);
    std::map<std::string, int64_t> table;
    for (const MemoryRow& row : plan.memory) table[row.what] = row.bytes;
    EXPECT_NEAR(static_cast<double>(plan.mapped), stored, 0.01e9 + 1e-4 * stored) << name;
    const int64_t adapters = int64_t{16} * 4 * ends;
    EXPECT_EQ(table["parameters"], adapters) << name;
    EXPECT_EQ(table["gradients"], adapters) << name;
    EXPECT_EQ(table["moments"], 2 * adapters) << name;
    EXPECT_EQ(table["bf16 copy"], 0) << name;
  }
}

TEST(TrainMemory, RematKeepsLess) {
  const auto kept = [](const std::string& policy) {
    const RunConfig config =
        Flags({"model_name=deepseek3-671b", "per_device_batch_size=1", "max_target_length=512", "remat_policy=" + policy});
    return Table(config)["activations"];
  };
  EXPECT_LT(kept("full"), kept("minimal"));
  EXPECT_LT(kept("minimal"), kept("none"));
}

}  // namespace
}  // namespace fathom
