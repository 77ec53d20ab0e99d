// Training adapters: the base stays untouched, what is saved is a PEFT folder, resuming gives the same bits, and merging gives the same
// logits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/convert/convert.h"
#include "fathom/checkpoint/hub/peft.h"
#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/data/synthetic.h"
#include "fathom/model/adapters.h"
#include "fathom/model/decoder.h"
#include "fathom/model/load.h"
#include "fathom/testing/close.h"
#include "fathom/testing/folder.h"
#include "fathom/train/load_model.h"
#include "fathom/train/loop.h"
#include "fathom/train/memory.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string Content(const fs::path& file) { return ReadTextFile(file); }

std::vector<float> Logits(const Checkpoint& checkpoint, const fs::path& adapter) {
  DecoderParams params = MapParams(checkpoint);
  if (!adapter.empty()) AttachForInference(adapter, {}, params);
  Decoder decoder(checkpoint.config());
  decoder.EnsurePositions(16);
  Arena saved(1 << 20), scratch(1 << 28);
  Ctx ctx{saved, scratch, DType::kF32};
  std::vector<int32_t> ids(12), positions(12);
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(i * 5 % 23);
    positions[i] = static_cast<int32_t>(i);
  }
  const Segment all{0, 12, 0, 12};
  Tensor h(DType::kF32, {12, checkpoint.config().hidden_size}), logits(DType::kF32, {12, checkpoint.config().vocab_size});
  decoder.Forward(ctx, params, ids, {positions, {&all, 1}}, h.mutable_view());
  decoder.head().StreamLogits(ctx, {params.norm, params.lm_head}, h, logits.mutable_view());
  return {logits.data<float>(), logits.data<float>() + logits.NumElements()};
}

class Lora : public testing::Test {
 protected:
  fs::path Write(const Json& config) {
    WriteCheckpoint(folder_.path() / "base", config, TinyTensors(config));
    return folder_.path() / "base";
  }
  std::vector<std::string> Flags(const std::string& name, int64_t steps, std::vector<std::string> more) const {
    more.insert(more.end(),
                {"load_parameters_path=" + (folder_.path() / "base").string(), "dataset_type=synthetic", "max_target_length=16",
                 "per_device_batch_size=2", "dtype=float32", "weight_dtype=float32", "learning_rate=0.05", "warmup_steps_fraction=0",
                 "learning_rate_schedule_steps=4", "run_name=" + name, "steps=" + std::to_string(steps), "lora.enable_lora=true",
                 "base_output_directory=" + folder_.path().string()});
    return more;
  }
  fs::path Train(const std::string& name, int64_t steps, std::vector<std::string> more = {"lora.lora_rank=3", "lora.lora_alpha=6"}) const {
    EXPECT_EQ(RunTraining(RunConfig::Resolve(Flags(name, steps, std::move(more)))), 0);
    return folder_.path() / name / "checkpoints" / std::to_string(steps - 1);
  }
  std::string ErrorOf(std::vector<std::string> more) const {
    try {
      RunTraining(RunConfig::Resolve(Flags("bad", 1, std::move(more))));
    } catch (const Error& e) {
      return e.what();
    }
    return "none";
  }
  TemporaryFolder folder_;
};

TEST_F(Lora, TrainsTheAdaptersAloneAndSavesThem) {
  for (const Json& config : {WithFp8(TinyConfig("deepseek_v32")), TinyConfig("deepseek_v2")}) {
    const fs::path base = Write(config);
    const std::string before = Content(base / kSingleFile);
    const fs::path out = Train("run", 2);
    EXPECT_EQ(Content(base / kSingleFile), before);
    EXPECT_FALSE(fs::exists(out / kSingleFile));
    EXPECT_TRUE(HasTrainState(out));
    const Checkpoint checkpoint = Checkpoint::Open(base);
    const PeftAdapter adapter = ReadPeftAdapter(out, ModelSpec(checkpoint.config()));
    for (const auto& [module, low] : adapter.modules) {
      EXPECT_EQ(module.find(".experts."), module.npos) << module;  // unless asked for
      EXPECT_EQ(module.find("indexer"), module.npos) << module;
      float largest = 0;
      for (int64_t i = 0; i < low.b.NumElements(); ++i) largest = std::max(largest, std::abs(low.b.data<float>()[i]));
      EXPECT_GT(largest, 0) << module;  // B began as zeros
    }
    EXPECT_TRUE(adapter.modules.contains("model.layers.1.mlp.shared_experts.up_proj"));
    fs::remove_all(base);
    fs::remove_all(folder_.path() / "run");
  }
}

int64_t BytesOf(DecoderParams& params) {
  int64_t bytes = 0;
  for (const NamedAdapter& a : ListAdapters(params)) bytes += a.adapter->a.NumBytes() + a.adapter->b.NumBytes();
  return bytes;
}

// Adapters, their gradients and moments, and what a step takes; nothing of the base, which stays mapped.
TEST_F(Lora, ThePlanIsWhatARunTakes) {
  for (const Json& base : {WithFp8(TinyConfig("deepseek_v32")), TinyConfig()}) {
    const fs::path dir = Write(base);
    for (const char* remat : {"remat_policy=full", "remat_policy=minimal", "remat_policy=none"}) {
      const RunConfig config = RunConfig::Resolve(Flags("plan", 1, {"lora.lora_rank=3", "lora.lora_alpha=6", remat}));
      const TrainOptions options = ReadTrainOptions(config);
      const auto load = [&] { return LoadModel(config, options, dir); };
      std::map<std::string, int64_t> table;
      for (const MemoryRow& row : PlanTraining(options, NumThreads(), load).memory) table[row.what] = row.bytes;
      LoadedModel model = load();
      TrainSession session(model.config, options, std::move(model.params));
      SyntheticSource source({options.rows, options.length, model.config.vocab_size, 7});
      Batch batch;
      ASSERT_TRUE(source.Next(&batch));
      session.Step(batch, 1e-3);
      const int64_t adapters = BytesOf(session.params());
      EXPECT_EQ(table["parameters"], adapters);
      EXPECT_EQ(table["gradients"], BytesOf(session.grads()));
      EXPECT_EQ(table["moments"], 2 * adapters);
      EXPECT_EQ(table["activations"], session.taken().saved);
      const double factor = static_cast<double>(session.taken().scratch) / static_cast<double>(table["scratch"]);
      EXPECT_TRUE(factor > 0.97 && factor <= 1) << remat << ": " << factor;
    }
    fs::remove_all(dir);
  }
}

// The flags' model as the hub would have it is the checkpoint of these sizes.
TEST_F(Lora, APlanNeedsNoCheckpoint) {
  const fs::path dir = Write(WithFp8(TinyConfig()));
  const auto plan = [&](const fs::path& from, std::vector<std::string> more) {
    const RunConfig config = RunConfig::Resolve(Flags("plan", 1, std::move(more)));
    const TrainOptions options = ReadTrainOptions(config);
    return PlanTraining(options, 2, [&] { return LoadModel(config, options, from); });
  };
  const std::vector<std::string> lora = {"lora.lora_rank=3", "lora.lora_alpha=6", "lora.lora_module_path=.*(self_attn|experts).*"};
  std::vector<std::string> sizes = {"model_name=deepseek3-tiny",
                                    "override_model_config=true",
                                    "vocab_size=24",
                                    "base_emb_dim=16",
                                    "base_mlp_dim=20",
                                    "base_num_decoder_layers=2",
                                    "base_num_query_heads=2",
                                    "base_num_kv_heads=2",
                                    "q_lora_rank=12",
                                    "kv_lora_rank=8",
                                    "qk_nope_head_dim=8",
                                    "qk_rope_head_dim=4",
                                    "v_head_dim=8",
                                    "max_position_embeddings=64",
                                    "num_experts=4",
                                    "num_experts_per_tok=2",
                                    "base_moe_mlp_dim=8",
                                    "first_num_dense_layers=1",
                                    "shared_experts=1",
                                    "n_routing_groups=2",
                                    "topk_routing_group=1",
                                    "rope_type=default"};
  sizes.insert(sizes.end(), lora.begin(), lora.end());
  const TrainPlan here = plan(dir, lora), hub = plan({}, sizes);
  EXPECT_EQ(hub.mapped, here.mapped);
  ASSERT_EQ(hub.memory.size(), here.memory.size());
  for (size_t i = 0; i < hub.memory.size(); ++i) EXPECT_EQ(hub.memory[i].bytes, here.memory[i].bytes) << hub.memory[i].what;
  const RunConfig config = RunConfig::Resolve(Flags("run", 1, sizes));
  EXPECT_THROW(LoadModel(config, ReadTrainOptions(config), {}), Error) << "a run needs it";
}

TEST_F(Lora, ResumingGivesTheSameBits) {
  Write(WithFp8(TinyConfig()));
  Train("twice", 2);
  const fs::path whole = Train("once", 4), resumed = Train("twice", 4);
  EXPECT_EQ(Content(whole / kAdapterFile), Content(resumed / kAdapterFile));
  EXPECT_EQ(Content(whole / "train_state" / "nu.safetensors"), Content(resumed / "train_state" / "nu.safetensors"));
}

TEST_F(Lora, MergingGivesTheSameLogits) {
  const fs::path base = Write(WithFp8(TinyConfig()));
  const fs::path out = Train("run", 4, {"lora.lora_rank=3", "lora.lora_alpha=6", "lora.lora_module_path=.*(self_attn|mlp).*proj.*"});
  ConvertOptions options;
  options.input = base;
  options.output = folder_.path() / "merged";
  options.adapter = out;
  EXPECT_THROW(Convert(options), Error);  // into FP8 codes that are kept
  options.dtype.target = TargetDType::kF32;
  Convert(options);
  const auto beside = Logits(Checkpoint::Open(base), out), merged = Logits(Checkpoint::Open(options.output), {}),
             plain = Logits(Checkpoint::Open(base), {});
  EXPECT_TRUE(RelativeL2(merged, ToDoubles(beside), 1e-5));
  EXPECT_FALSE(RelativeL2(plain, ToDoubles(beside), 1e-3));
}

TEST_F(Lora, GoesOnBesideTheBaseItBeganWithAlone) {
  const fs::path base = Write(TinyConfig());
  Train("run", 2);
  const auto error = [&] {
    try {
      Train("run", 4);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      return std::string(e.what());
    }
    return std::string("none");
  };
  std::string file = Content(base / kSingleFile);
  const std::string before = file;
  for (size_t i = 1; i <= 2000; ++i) file[file.size() - i] ^= 1;  // another model of the same shape
  WriteFileAtomically(base / kSingleFile, file);
  EXPECT_THAT(error(), HasSubstr("were trained beside other weights than"));
  Json config = TinyConfig();
  config["routed_scaling_factor"] = 7;
  WriteFileAtomically(base / kSingleFile, before);
  WriteFileAtomically(base / "config.json", config.dump());
  EXPECT_THAT(error(), HasSubstr("were trained beside other weights than"));
  WriteFileAtomically(base / "config.json", TinyConfig().dump());
  EXPECT_EQ(error(), "none");
}

TEST_F(Lora, BeginsWithTheAdapterThatIsNamed) {
  Write(TinyConfig());
  const fs::path first = Train("first", 2);
  const auto saved = [&](const std::string& name, const std::string& flag) {
    return Content(Train(name, 1, {"lora.lora_rank=3", "lora.lora_alpha=6", flag + first.string()}) / "adapter_model.safetensors");
  };
  const std::string named = saved("named", "hf_lora_adapter_path=");
  EXPECT_TRUE(named == saved("restored", "lora.lora_restore_path="));
  EXPECT_FALSE(named == Content(Train("fresh", 1) / "adapter_model.safetensors"));
  EXPECT_THAT(ErrorOf({"lora.lora_rank=3", "lora.lora_alpha=6", "hf_lora_adapter_path=a", "lora.lora_restore_path=b"}),
              HasSubstr("both name the adapter"));
}

TEST_F(Lora, FlagsAndAdaptersThatDoNotFit) {
  Write(TinyConfig());
  EXPECT_THAT(ErrorOf({"lora.lora_rank=0", "lora.lora_alpha=6"}), HasSubstr("lora.lora_rank=0"));
  EXPECT_THAT(ErrorOf({"lora.lora_rank=3"}), HasSubstr("lora.lora_alpha"));
  EXPECT_THAT(ErrorOf({"lora.lora_rank=3", "lora.lora_alpha=6", "lora.lora_module_path=nothing"}), HasSubstr("lora.lora_module_path"));
  EXPECT_THAT(ErrorOf({"lora.lora_rank=3", "lora.lora_alpha=6", "trainable_parameters_mask=.*mlp.*"}),
              HasSubstr("trainable_parameters_mask"));
  const fs::path out = Train("run", 1);
  const std::string restore = "lora.lora_restore_path=" + out.string();
  EXPECT_THAT(ErrorOf({"lora.lora_rank=4", "lora.lora_alpha=6", restore}), HasSubstr("rank 3"));
  EXPECT_THAT(ErrorOf({"lora.lora_rank=3", "lora.lora_alpha=6", restore, "lora.lora_module_path=.*o_proj"}), HasSubstr("adapters for"));
}

}  // namespace
}  // namespace fathom
