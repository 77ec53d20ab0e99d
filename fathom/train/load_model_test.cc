// Which MTP modules a run gets, whose embedding and head they use, and what is saved of them.
#include "fathom/train/load_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fathom/checkpoint/hub/validate.h"
#include "fathom/testing/close.h"
#include "fathom/testing/folder.h"
#include "fathom/train/loop.h"

namespace fathom {
namespace {

using testing::HasSubstr;

std::filesystem::path Golden(const std::string& name) { return std::filesystem::path(FATHOM_TEST_DATA) / "golden" / name; }

LoadedModel Load(const std::filesystem::path& dir, std::vector<std::string> flags) {
  flags.insert(flags.end(), {"weight_dtype=float32", "per_device_batch_size=1", "steps=1"});
  const RunConfig config = RunConfig::Resolve(flags);
  return LoadModel(config, ReadTrainOptions(config), dir);
}

std::string ErrorOf(const std::filesystem::path& dir, const std::vector<std::string>& flags) {
  try {
    Load(dir, flags);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

const std::byte* Memory(const Weight& w) { return w.value.view().raw(); }

TEST(LoadModel, ModulesThatTheCheckpointLacksAreAnErrorOrMade) {
  EXPECT_THAT(ErrorOf(Golden("v3"), {"mtp_num_layers=2"}),
              AllOf(HasSubstr("mtp_num_layers=2"), HasSubstr("holds 1"), HasSubstr("init_missing=mtp")));
  EXPECT_THAT(ErrorOf(Golden("v2"), {"mtp_num_layers=1"}), HasSubstr("holds 0"));
  EXPECT_THAT(ErrorOf(Golden("v3"), {"mtp_eval_target_module=2"}), HasSubstr("mtp_eval_target_module=2"));
  LoadedModel model = Load(Golden("v3"), {"mtp_num_layers=2", "init_missing=[mtp]"});
  EXPECT_EQ(model.config.num_nextn_predict_layers, 2);
  std::set<std::string> names;
  for (const NamedWeight& w : ListParams(model.params)) names.insert(w.spec->name);
  for (const ParamSpec& t : ModelSpec(model.config)) EXPECT_TRUE(names.contains(t.name)) << t.name;
}

TEST(LoadModel, ABrokenCheckpointIsNamed) {
  const TemporaryFolder folder;
  std::filesystem::copy(Golden("v3") / "config.json", folder.path());
  EXPECT_THAT(ErrorOf(folder.path(), {"ignore_config_keys=[a,b]"}), HasSubstr(folder.path().string()));
  EXPECT_THAT(ErrorOf({}, {"model_name=deepseek3-tiny", "override_model_config=true", "num_experts_per_tok=99"}),
              HasSubstr("num_experts_per_tok"));
}

TEST(LoadModel, AGivenSizeMustBeTheCheckpoints) {
  const int64_t width = Load(Golden("v3"), {}).config.hidden_size;
  EXPECT_EQ(ErrorOf(Golden("v3"), {fmt::format("base_emb_dim={}", width)}), "");
  EXPECT_THAT(ErrorOf(Golden("v3"), {fmt::format("base_emb_dim={}", 2 * width)}),
              AllOf(HasSubstr(fmt::format("base_emb_dim={}", 2 * width)), HasSubstr("config.json"), HasSubstr(std::to_string(width))));
  EXPECT_THAT(ErrorOf(Golden("v3"), {"base_num_decoder_layers=99"}), HasSubstr("base_num_decoder_layers=99"));
  EXPECT_EQ(ErrorOf(Golden("v3"), {"model_name=deepseek3-tiny"}), "");
}

TEST(LoadModel, AnIndexerMakesV3OneOfV32) {
  LoadedModel model = Load(Golden("v3"), {"init_missing=[indexer]", "indexer_n_heads=4", "indexer_head_dim=16", "indexer_topk=12"});
  EXPECT_EQ(model.config.family, ModelFamily::kV32);
  EXPECT_EQ(model.config.index_topk, 12);
  std::set<std::string> names;
  for (const NamedWeight& w : ListParams(model.params)) names.insert(w.spec->name);
  EXPECT_TRUE(names.contains("model.layers.0.self_attn.indexer.k_norm.bias"));
  for (const ParamSpec& t : ModelSpec(model.config)) EXPECT_TRUE(names.contains(t.name)) << t.name;
  EXPECT_THAT(ErrorOf(Golden("v2-lite"), {"init_missing=[indexer]"}), HasSubstr("q_lora_rank"));
}

TEST(LoadModel, ModulesShareTheMainModelsEmbeddingAndHead) {
  const LoadedModel shared = Load(Golden("v3"), {"mtp_num_layers=1"}), own = Load(Golden("v3"), {"mtp_num_layers=1", "mtp_own_head=true"});
  EXPECT_EQ(Memory(shared.params.mtp[0].embed_tokens), Memory(shared.params.embed_tokens));
  EXPECT_EQ(Memory(shared.params.mtp[0].shared_head_head), Memory(shared.params.lm_head));
  EXPECT_NE(Memory(own.params.mtp[0].embed_tokens), Memory(own.params.embed_tokens));
  EXPECT_NE(Memory(own.params.mtp[0].shared_head_head), Memory(own.params.lm_head));
  // A checkpoint without the copies.
  const auto lacking = std::filesystem::path(FATHOM_TEST_DATA) / "maxtext" / "v3-trained";
  const LoadedModel made = Load(lacking, {"mtp_num_layers=1", "mtp_own_head=true"});
  const auto floats = [](const Weight& w) {
    return std::span<const float>(w.value.data<float>(), static_cast<size_t>(w.value.NumElements()));
  };
  EXPECT_NE(Memory(made.params.mtp[0].shared_head_head), Memory(made.params.lm_head));
  EXPECT_TRUE(SameBits(floats(made.params.mtp[0].shared_head_head), floats(made.params.lm_head)));
}

// Two steps, saved; the folder that was written.
std::filesystem::path Train(const std::filesystem::path& out, const std::string& name, std::vector<std::string> flags) {
  flags.insert(flags.end(), {"dataset_type=synthetic", "max_target_length=16", "per_device_batch_size=2", "steps=2", "dtype=float32",
                             "weight_dtype=float32", "learning_rate=0.01", "warmup_steps_fraction=0", "run_name=" + name,
                             "base_output_directory=" + out.string()});
  EXPECT_EQ(RunTraining(RunConfig::Resolve(flags)), 0);
  return out / name / "checkpoints" / "1";
}

std::vector<float> Values(const Checkpoint& c, const std::string& name) {
  const Tensor t = c.Get(name);
  return {t.data<float>(), t.data<float>() + t.NumElements()};
}

TEST(LoadModel, TrainedModulesAreSavedUnderTheHubsNamesWithEqualCopies) {
  const TemporaryFolder out;
  const Checkpoint before = Checkpoint::Open(Golden("v3"));
  const Checkpoint trained =
      Checkpoint::Open(Train(out.path(), "trained", {"load_parameters_path=" + Golden("v3").string(), "mtp_num_layers=1"}));
  ValidateAgainstConfig(trained);
  EXPECT_TRUE(SameBits(Values(trained, "model.layers.2.embed_tokens.weight"), Values(trained, "model.embed_tokens.weight")));
  EXPECT_TRUE(SameBits(Values(trained, "model.layers.2.shared_head.head.weight"), Values(trained, "lm_head.weight")));
  EXPECT_NE(Values(trained, "model.layers.2.eh_proj.weight"), Values(before, "model.layers.2.eh_proj.weight"));

  const Checkpoint carried = Checkpoint::Open(Train(out.path(), "carried", {"load_parameters_path=" + Golden("v3").string()}));
  ValidateAgainstConfig(carried);
  EXPECT_EQ(Values(carried, "model.layers.2.eh_proj.weight"), Values(before, "model.layers.2.eh_proj.weight"));

  const Checkpoint more = Checkpoint::Open(
      Train(out.path(), "more",
            {"load_parameters_path=" + Golden("v3").string(), "mtp_num_layers=2", "init_missing=[mtp]", "mtp_own_head=true"}));
  ValidateAgainstConfig(more);
  EXPECT_EQ(more.config().num_nextn_predict_layers, 2);
  EXPECT_NE(Values(more, "model.layers.3.shared_head.head.weight"), Values(more, "lm_head.weight"));
}

}  // namespace
}  // namespace fathom
