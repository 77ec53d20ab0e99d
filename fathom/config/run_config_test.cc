#include "fathom/config/run_config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/config/built_in_files.h"
#include "fathom/config/flag_table.h"
#include "fathom/config/flag_text.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using Words = std::vector<std::string>;

// Sets an environment variable for the life of the object.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

std::string ErrorOf(const Words& words) {
  try {
    RunConfig::Resolve(words);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage) << e.what();
    return e.what();
  }
  return "";
}

void ExpectError(const Words& words, const Words& parts) {
  const std::string error = ErrorOf(words);
  for (const std::string& part : parts) EXPECT_NE(error.find(part), error.npos) << '"' << error << "\" lacks " << part;
  EXPECT_EQ(error.find('\n'), error.npos);
}

TEST(RunConfig, DefaultsAreMaxTextsButForTheDocumented) {
  const RunConfig config = RunConfig::Resolve({});
  EXPECT_EQ(config.Int("steps"), 150001);
  EXPECT_EQ(config.String("opt_type"), "adamw");
  EXPECT_DOUBLE_EQ(config.Float("learning_rate"), 3e-5);
  EXPECT_EQ(config.String("dtype"), "bfloat16");
  EXPECT_EQ(config.String("remat_policy"), "minimal");
  EXPECT_EQ(config.String("dataset_type"), "text");
  EXPECT_DOUBLE_EQ(config.Float("per_device_batch_size"), 12);
  EXPECT_TRUE(config.IsNull("max_num_checkpoints_to_keep"));
  EXPECT_EQ(config.String("prompt"), "I love to");
  EXPECT_EQ(config.Strings("train_data_columns"), Words{"text"});
  EXPECT_FALSE(config.Given("steps"));
}

TEST(RunConfig, ParsesEachSpelling) {
  const RunConfig config = RunConfig::Resolve(
      {"steps=7", "--learning-rate=1e-4", "--dtype", "float32", "--packing", "--scan-layers", "False", "adamw_mask=[a, 'b,c',\"d\"]",
       "trainable_parameters_mask=.*indexer.*", "run_name=None", "prompt=None", "remat_policy=none", "max_shard_size=2.5GB",
       "memory_limit=1GiB", "max_num_checkpoints_to_keep=3", "prompt_ids=1,2", "adam_b1=0", "steps=1e3", "wsd_decay_style='cosine'"});
  EXPECT_EQ(config.Int("steps"), 1000);
  EXPECT_DOUBLE_EQ(config.Float("learning_rate"), 1e-4);
  EXPECT_EQ(config.String("dtype"), "float32");
  EXPECT_TRUE(config.Bool("packing"));
  EXPECT_FALSE(config.Bool("scan_layers"));
  EXPECT_EQ(config.Strings("adamw_mask"), (Words{"a", "b,c", "d"}));
  EXPECT_EQ(config.Strings("trainable_parameters_mask"), Words{".*indexer.*"});
  EXPECT_EQ(config.String("prompt"), "None");
  EXPECT_EQ(config.String("remat_policy"), "none");
  EXPECT_EQ(config.Int("max_shard_size"), 2500000000);
  EXPECT_EQ(config.Int("memory_limit"), 1 << 30);
  EXPECT_EQ(config.Int("max_num_checkpoints_to_keep"), 3);
  EXPECT_EQ(config.String("prompt_ids"), "1,2");
  EXPECT_EQ(config.Float("adam_b1"), 0);
  EXPECT_EQ(config.String("wsd_decay_style"), "cosine");
  EXPECT_TRUE(config.Given("dtype"));
}

TEST(RunConfig, KeepsTheRestOfAPrompt) {
  const RunConfig config = RunConfig::Resolve({"prompt=a=b \"c\": {d} # e", "text='x'", "stop=[\"a, b\",c]"});
  EXPECT_EQ(config.String("prompt"), "a=b \"c\": {d} # e");
  EXPECT_EQ(config.String("text"), "'x'");
  EXPECT_EQ(config.Strings("stop"), (Words{"a, b", "c"}));
}

TEST(RunConfig, CollectsInputsAndWords) {
  const RunConfig config = RunConfig::Resolve({"input=a b", "input=c", "DIR", "x.yml"});
  EXPECT_EQ(config.Strings("input"), (Words{"a b", "c"}));
  EXPECT_EQ(config.words(), (Words{"DIR", "x.yml"}));
}

TEST(RunConfig, NamesUnknownFlags) {
  ExpectError({"learnng_rate=1"}, {"learnng_rate", "learning_rate", "command line"});
  ExpectError({"--step", "3"}, {"did you mean steps"});
  ExpectError({"--no-such"}, {"no-such"});
  EXPECT_EQ(ErrorOf({"quite_another=1"}), "command line: unknown flag quite_another");
}

TEST(RunConfig, NamesWrongTypes) {
  ExpectError({"steps=abc"}, {"steps=abc", "whole number"});
  ExpectError({"steps=1.5"}, {"steps=1.5"});
  ExpectError({"steps=99999999999999999999"}, {"steps="});
  ExpectError({"steps="}, {"steps="});
  ExpectError({"packing=maybe"}, {"packing=maybe", "true or false"});
  ExpectError({"learning_rate=fast"}, {"learning_rate=fast", "number"});
  ExpectError({"learning_rate=nan"}, {"learning_rate=nan"});
  ExpectError({"steps=null"}, {"steps=null"});
  ExpectError({"opt_type=adagrad"}, {"opt_type=adagrad", "adamw, adam_pax, sgd"});
  ExpectError({"to=gguf"}, {"nothing, hf, orbax"});
  ExpectError({"adamw_mask=[a"}, {"adamw_mask", "list"});
  ExpectError({"max_shard_size=5XB"}, {"max_shard_size=5XB", "5GB"});
  ExpectError({"--steps"}, {"--steps", "needs a value"});
  ExpectError({"warmup_steps_fraction=1.5"}, {"from 0 to 1"});
  ExpectError({"draft_tokens=0"}, {"draft_tokens=0"});
  ExpectError({"eval_steps=0"}, {"eval_steps=0", "from 1, or -1"});
  ExpectError({"init_missing=foo"}, {"init_missing=foo", "a list of indexer, mtp"});
  ExpectError({"init_missing=[mtp,foo]"}, {"init_missing=[mtp,foo]"});
  ExpectError({"memory_limit=1"}, {"memory_limit=1:", "from 64MiB"});
  ExpectError({"muon_beta=1"}, {"muon_beta=1"});
}

TEST(RunConfig, LoadsModels) {
  const RunConfig v3 = RunConfig::Resolve({"model_name=deepseek3-671b-Instruct"});
  EXPECT_EQ(v3.String("model_name"), "deepseek3-671b");
  EXPECT_EQ(v3.Int("base_emb_dim"), 7168);
  EXPECT_EQ(v3.Int("n_routing_groups"), 8);
  EXPECT_EQ(v3.flags().find("base_emb_dim")->second.source, "models/deepseek3-671b.yml");
  ExpectError({"model_name=deepseek3-617b"}, {"deepseek3-617b", "did you mean deepseek3-671b"});
  const std::string error = ErrorOf({"model_name=llama3-8b"});
  EXPECT_NE(error.find("known: deepseek2-16b"), error.npos);
  EXPECT_EQ(error.find("did you mean"), error.npos);
}

TEST(RunConfig, KnowsModelsByTheirNamesOnTheHub) {
  const auto named = [](const std::string& name) { return RunConfig::Resolve({"model_name=" + name}).String("model_name"); };
  for (const char* name : {"deepseek3.1-671b", "deepseek-r1", "deepseek3-r1", "deepseek-v3", "deepseek-ai/DeepSeek-V3.1-Terminus",
                           "DeepSeek-R1-0528", "deepseek-v3-base", "deepseek-r1-671b"})
    EXPECT_EQ(named(name), "deepseek3-671b") << name;
  EXPECT_EQ(named("deepseek-ai/DeepSeek-V3.2-Exp"), "deepseek3.2-671b");
  EXPECT_EQ(named("DeepSeek-V2-Lite-Chat"), "deepseek2-16b");
  EXPECT_EQ(named("deepseek-v2"), "deepseek2-236b");
  ExpectError({"model_name=deepseek-r1-distill-qwen-7b"}, {"unknown model"});
}

TEST(RunConfig, GuardsTheModel) {
  ExpectError({"model_name=deepseek3-tiny", "base_emb_dim=32"}, {"base_emb_dim=32", "64", "override_model_config=true"});
  EXPECT_EQ(ErrorOf({"model_name=deepseek3-tiny", "base_emb_dim=64"}), "");
  const RunConfig config = RunConfig::Resolve({"model_name=deepseek3-tiny", "base_emb_dim=32", "override_model_config=True"});
  EXPECT_EQ(config.Int("base_emb_dim"), 32);
  EXPECT_EQ(config.Int("kv_lora_rank"), 16);
}

TEST(RunConfig, ReadsTheEnvironment) {
  const Variable steps("FATHOM_STEPS", "9"), rate("M_LEARNING_RATE", "0.5"), simd("FATHOM_SIMD", "avx2");
  const RunConfig config = RunConfig::Resolve({});
  EXPECT_EQ(config.Int("steps"), 9);
  EXPECT_EQ(config.flags().find("steps")->second.source, "environment FATHOM_STEPS");
  EXPECT_DOUBLE_EQ(config.Float("learning_rate"), 0.5);
  EXPECT_TRUE(config.Given("steps"));
  ExpectError({"steps=3"}, {"FATHOM_STEPS", "command line"});
}

TEST(RunConfig, RefusesBadEnvironment) {
  {
    const Variable steps("FATHOM_STEPS", "many");
    ExpectError({}, {"environment FATHOM_STEPS", "steps=many"});
  }
  {
    const Variable mask("FATHOM_ADAMW_MASK", "a");
    ExpectError({}, {"FATHOM_ADAMW_MASK", "list"});
  }
  {
    const Variable width("M_BASE_EMB_DIM", "64");
    ExpectError({"model_name=deepseek3-tiny"}, {"M_BASE_EMB_DIM", "override_model_config"});
  }
  const Variable unknown("FATHOM_STEP", "3");
  EXPECT_EQ(ErrorOf({}), "");
}

class RunConfigFiles : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    const auto path = folder_.path() / name;
    std::filesystem::create_directories(path.parent_path());
    WriteFileAtomically(path, text);
    return path.string();
  }
  TemporaryFolder folder_;
};

TEST_F(RunConfigFiles, InheritsFromParents) {
  Write("parent.yml", "steps: 5\nlearning_rate: 2\nadamw_mask: [x, y]\nbase_config: base.yml\n");
  const std::string child = Write("child.yml", "base_config: parent.yml\nsteps: 6\nprompt: 'yes'\nmodel_name: mine\n");
  Write("models/mine.yml", "base_emb_dim: 48\nlearning_rate: 3.0\n");
  const RunConfig config = RunConfig::Resolve({child, "learning_rate=3"});
  EXPECT_EQ(config.Int("steps"), 6);
  EXPECT_EQ(config.Int("base_emb_dim"), 48);
  EXPECT_DOUBLE_EQ(config.Float("learning_rate"), 3);
  EXPECT_EQ(config.Strings("adamw_mask"), (Words{"x", "y"}));
  EXPECT_EQ(config.String("prompt"), "yes");
  EXPECT_EQ(config.flags().find("steps")->second.source, child);
}

TEST_F(RunConfigFiles, WhatTheUsersYmlSaysIsGivenEvenIfItIsTheDefault) {
  Write("parent.yml", "base_config: base.yml\nnum_epoch: 1\n");
  const std::string child = Write("child.yml", "base_config: parent.yml\ndtype: bfloat16\nmodel_name: deepseek3-tiny\nseed: 4\n");
  const RunConfig config = RunConfig::Resolve({child});
  for (const char* key : {"num_epoch", "dtype", "model_name", "seed"}) EXPECT_TRUE(config.Given(key)) << key;
  for (const char* key : {"steps", "base_emb_dim", "data_shuffle_seed"}) EXPECT_FALSE(config.Given(key)) << key;
  EXPECT_EQ(config.Int("data_shuffle_seed"), 4);
}

TEST_F(RunConfigFiles, ACopyOfBaseGivesOnlyWhatItChanges) {
  std::string base;
  for (const BuiltInFile& file : BuiltInFiles()) {
    if (file.name == "base.yml") base = file.text;
  }
  base.replace(base.find("num_epoch: 1"), std::strlen("num_epoch: 1"), "num_epoch: 3");
  const std::string copy = Write("maxtext/base.yml", base), child = Write("child.yml", "base_config: maxtext/base.yml\nsteps: 150001\n");
  for (const std::string& path : {copy, child}) {
    const RunConfig config = RunConfig::Resolve({path, "compat=maxtext", "seed=4"});
    EXPECT_TRUE(config.Given("num_epoch"));
    for (const char* key : {"max_prefill_predict_length", "dtype", "base_emb_dim", "mtp_num_layers"})
      EXPECT_FALSE(config.Given(key)) << key;
    EXPECT_EQ(config.Given("steps"), path == child);
    EXPECT_EQ(config.String("mtp_input"), "before_norm");
    EXPECT_EQ(config.Int("init_weights_seed"), 4);
  }
}

TEST_F(RunConfigFiles, ACommandsDefaultsStandWhereNothingElseIsSaid) {
  const RunConfig alone = RunConfig::Resolve({}, "sft.yml");
  EXPECT_TRUE(alone.Bool("use_sft"));
  EXPECT_EQ(alone.Strings("train_data_columns"), Words{"messages"});
  EXPECT_DOUBLE_EQ(alone.Float("learning_rate"), 2e-5);
  EXPECT_FALSE(alone.Given("learning_rate"));
  const std::string mine = Write("mine.yml", "packing: false\n");
  const RunConfig config = RunConfig::Resolve({mine, "learning_rate=3.0e-5"}, "sft.yml");
  EXPECT_FALSE(config.Bool("packing"));
  EXPECT_DOUBLE_EQ(config.Float("learning_rate"), 3e-5);
  EXPECT_TRUE(RunConfig::Resolve({"base.yml"}, "sft.yml").Bool("use_sft")) << "base.yml's defaults ask for nothing";
}

TEST_F(RunConfigFiles, NamesWhatIsWrong) {
  ExpectError({Write("a.yml", "stepz: 5\n")}, {"a.yml", "stepz", "steps"});
  ExpectError({Write("b.yml", "steps: [1]\n")}, {"b.yml", "steps=[1]"});
  ExpectError({Write("c.yml", "steps: 5\nsteps: 6\n")}, {"c.yml"});
  ExpectError({Write("d.yml", "steps: {a: 1}\n")}, {"d.yml", "steps"});
  ExpectError({Write("e.yml", "- 1\n")}, {"e.yml"});
  ExpectError({Write("f.yml", "a: [\n")}, {"f.yml", "YAML"});
  ExpectError({Write("g.yml", "base_config: g.yml\n")}, {"g.yml", "circle"});
  EXPECT_THROW(RunConfig::Resolve({"absent.yml"}), Error);
}

TEST_F(RunConfigFiles, TakesNestedKeys) {
  const RunConfig config = RunConfig::Resolve({Write("a.yml", "lora:\n  enable_lora: true\n  lora-rank: 8\nvllm_hf_overrides: {}\n")});
  EXPECT_TRUE(config.Bool("lora.enable_lora"));
  EXPECT_EQ(config.Float("lora.lora_rank"), 8);
  EXPECT_FALSE(config.flags().find("vllm_hf_overrides")->second.value != FlagValue(std::string()));
  EXPECT_TRUE(RunConfig::Resolve({"lora.enable_lora=true"}).Bool("lora.enable_lora"));
}

TEST_F(RunConfigFiles, JudgesValuesWhenAllFilesAreRead) {
  const std::string path = Write("a.yml", "opt_type: adagrad\nrope_type: llama3.1\n");
  ExpectError({path}, {path, "opt_type=adagrad"});
  EXPECT_EQ(RunConfig::Resolve({path, "opt_type=sgd", "model_name=deepseek3-tiny"}).String("rope_type"), "yarn");
}

// The flags that MaxText's guide to DeepSeek passes to its trainer, its decoder, its logit checker and its converters.
TEST(RunConfig, TakesTheFlagsOfMaxTextsGuide) {
  const Words lines[] = {
      {"src/maxtext/configs//base.yml", "run_name=r", "model_name=deepseek3-671b", "tokenizer_path=deepseek-ai/DeepSeek-V3",
       "attention=flash", "megablox=False", "sparse_matmul=False", "async_checkpointing=false", "ici_fsdp_parallelism=1",
       "ici_expert_parallelism=-1", "checkpoint_storage_concurrent_gb=1024", "use_tokamax_gmm=True",
       "hf_access_token=", "mla_naive_kvcache=false", "opt_type=sgd", "mtp_num_layers=1"},
      {"base.yml", "model_name=deepseek3.2-671b", "override_model_config=True", "indexer_topk=2", "scan_layers=true",
       "max_prefill_predict_length=4", "max_target_length=4", "activations_in_float32=true", "matmul_precision=highest",
       "float32_logits=true", "--golden_logits_path=x", "--atol=1e-4", "--max_kl_div=0.3"},
      {"model_name=deepseek2-16b", "enable_nnx=false", "hardware=cpu", "skip_jax_distributed_system=True", "--hf_model_path=x",
       "--lazy_load_tensors=False", "--eager_load_method=safetensors", "--save_dtype=bfloat16"},
      {"--input-fp8-hf-path=a", "--output-bf16-hf-path=b"},
      {"indexer_loss_scaling_factor=0.01", "indexer_sparse_training=False", "trainable_parameters_mask=['.*indexer.*']"}};
  for (const Words& line : lines) EXPECT_EQ(ErrorOf(line), "");
}

TEST_F(RunConfigFiles, TakesMaxTextsBaseForTheBuiltIn) {
  EXPECT_EQ(RunConfig::Resolve({"src/maxtext/configs/base.yml", "steps=3"}).Int("steps"), 3);
}

TEST(RunConfig, Derives) {
  const RunConfig config = RunConfig::Resolve(
      {"learning_rate_schedule_steps=50", "steps=-1", "seed=4", "weight_dtype=bfloat16", "compat=maxtext", "model_name=deepseek3-tiny"});
  EXPECT_EQ(config.Int("steps"), 50);
  EXPECT_EQ(config.Int("data_shuffle_seed"), 4);
  EXPECT_EQ(config.String("mu_dtype"), "bfloat16");
  EXPECT_EQ(config.String("mtp_input"), "before_norm");
  EXPECT_EQ(config.Float("eval_per_device_batch_size"), 12);
  EXPECT_EQ(config.String("run_name").find("deepseek3-tiny_"), 0u);
  EXPECT_EQ(RunConfig::Resolve({"compat=maxtext", "mtp_input=after_norm"}).String("mtp_input"), "after_norm");
  EXPECT_EQ(RunConfig::Resolve({"seed=4", "init_weights_seed=2"}).Int("init_weights_seed"), 2);
  EXPECT_EQ(RunConfig::Resolve({"steps=8"}).Int("learning_rate_schedule_steps"), 8);
}

TEST(RunConfig, RefusesContradictions) {
  ExpectError({"load_parameters_path=a", "load_full_state_path=b"}, {"load_parameters_path", "load_full_state_path"});
  ExpectError({"ici_data_parallelism=-1"}, {"ici", "-1"});
  ExpectError({"ici_expert_parallelism=0"}, {"ici_expert_parallelism=0"});
  ExpectError({"capacity_factor=0"}, {"capacity_factor=0"});
  ExpectError({"capacity_factor=nan"}, {"capacity_factor"});
  ExpectError({"global_parameter_scale=3"}, {"power of two"});
  ExpectError({"steps=-1"}, {"learning_rate_schedule_steps"});
  ExpectError({"adam_b2=1"}, {"adam_b2"});
  ExpectError({"use_sft=true", "use_dpo=true"}, {"use_sft", "use_dpo"});
}

TEST(RunConfig, RulesNameKnownFlagsAndDefaultsSuitThem) {
  for (const auto& [name, flag] : Flags()) {
    EXPECT_FALSE(flag.help.empty()) << name;
    EXPECT_FALSE(flag.AllowedText().empty()) << name;
    EXPECT_NO_THROW(CheckFlag(flag, flag.default_value, "default")) << name;
  }
}

}  // namespace
}  // namespace fathom
