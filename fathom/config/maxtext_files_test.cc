// What is MaxText's: its yml files, its flags without effect here, and those that can't be honoured.
#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/config/built_in_files.h"
#include "fathom/config/run_config.h"
#include "fathom/config/run_rules.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using Words = std::vector<std::string>;

// The message of Resolve or CheckHonoured; "" if they take the words.
std::string ErrorOf(const Words& words, const std::string& command = "train") {
  try {
    CheckHonoured(command, RunConfig::Resolve(words));
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage) << e.what();
    return e.what();
  }
  return "";
}

void ExpectError(const Words& words, const Words& parts) {
  const std::string error = ErrorOf(words);
  for (const std::string& part : parts) EXPECT_NE(error.find(part), error.npos) << '"' << error << "\" lacks " << part;
}

class MaxTextFiles : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    const auto path = folder_.path() / name;
    std::filesystem::create_directories(path.parent_path());
    WriteFileAtomically(path, text);
    return path.string();
  }
  TemporaryFolder folder_;
};

// A checkout of MaxText: its own defaults are no news, what it changes counts, keys of another version are only named.
TEST_F(MaxTextFiles, TakesMaxTextsOwnFiles) {
  const std::string base = Write("src/MaxText/configs/base.yml",
                                 "remat_policy: 'full'\ndecoder_block: 'llama2'\ndataset_type: tfds\nenable_dropout: true\nshardy: true\n"
                                 "mesh_axes: [data]\nsteps: 150_001\nlearning_rate: 7.e-5\nmegablox: false\nof_another_version: 1\n");
  Write("src/MaxText/configs/models/deepseek3-671b.yml", "decoder_block: deepseek\nbase_emb_dim: 7168\nnum_experts: 128\n");
  const std::string child = Write("src/MaxText/configs/post_train/sft.yml", "base_config: base.yml\nuse_sft: true\nremat_policy: full\n");
  const RunConfig config = RunConfig::Resolve({base, "model_name=deepseek3-671b"});
  EXPECT_EQ(config.String("remat_policy"), "minimal");
  EXPECT_EQ(config.String("dataset_type"), "text");
  EXPECT_EQ(config.Float("learning_rate"), 7e-5);
  EXPECT_EQ(config.Int("num_experts"), 128);
  EXPECT_EQ(config.Int("n_routing_groups"), 8);
  for (const char* key : {"remat_policy", "enable_dropout", "mesh_axes", "shardy", "steps"}) EXPECT_FALSE(config.Given(key)) << key;
  for (const char* key : {"learning_rate", "megablox"}) EXPECT_TRUE(config.Given(key)) << key;
  EXPECT_EQ(config.unknown(), Words{"of_another_version"});
  EXPECT_NO_THROW(CheckHonoured("train", config));
  const RunConfig sft = RunConfig::Resolve({child});
  EXPECT_EQ(sft.Float("learning_rate"), 7e-5);
  EXPECT_EQ(sft.String("remat_policy"), "full");
  EXPECT_TRUE(sft.Bool("use_sft"));
  EXPECT_NO_THROW(CheckHonoured("sft", sft));
}

TEST_F(MaxTextFiles, KnowsACopyOfMaxTextsBaseAnywhere) {
  std::string base = "decoder_block: llama2\nattention_type: global\nremat_policy: full\nsteps: 9\nof_another_version: 1\n";
  for (const BuiltInFile& file : BuiltInFiles()) {
    if (file.name == "maxtext_accepted.yml") base += file.text;
  }
  const std::string path = Write("mine.yml", base);
  const RunConfig config = RunConfig::Resolve({path});
  EXPECT_EQ(config.String("remat_policy"), "minimal");
  EXPECT_EQ(config.Int("steps"), 9);
  EXPECT_EQ(config.unknown(), Words{"of_another_version"});
  EXPECT_NO_THROW(CheckHonoured("train", config));
}

TEST(MaxTextFlags, KnowsMaxTextsFlags) {
  for (const char* flag : {"allow_split_physical_axes", "shardy", "use_iota_embed", "max_checkify", "dump_hlo"})
    EXPECT_NO_THROW(CheckHonoured("train", RunConfig::Resolve({std::string(flag) + "=true"}))) << flag;
  EXPECT_NO_THROW(
      CheckHonoured("train", RunConfig::Resolve({"dump_step=3", "sa_q_layout=SEQ_MINOR", "local_sa_block_q=512", "hf_name=null"})));
}

TEST_F(MaxTextFiles, RefusesWhatItCannotHonour) {
  for (const char* flag :
       {"formatting_func_path=x.py", "use_dpo=true", "lora.lora_weight_qtype=nf4", "ici_sequence_parallelism=4",
        "dcn_autoregressive_parallelism=2", "num_slices=2", "dropout_rate=0.1", "reuse_example_batch=2", "use_random_routing=true",
        "attention_bias=true", "sliding_window_size=512", "decoder_block=llama2", "engram_layers=[1]", "weight_sparsity_n=2",
        "tokenize_train_data=false", "rope_interleave=false", "lora_input_adapters_path=x"}) {
    const std::string error = ErrorOf({flag});
    EXPECT_NE(error.find(std::string("command line: ") + flag + ": "), error.npos) << flag << " -> " << error;
  }
  for (const char* flag : {"use_sft=false", "ici_diloco_parallelism=1", "ici_sequence_parallelism=1", "dcn_diloco_parallelism=1",
                           "num_slices=1", "dropout_rate=0", "decoder_block=deepseek", "engram_layers=[]", "weight_sparsity_n=null"})
    EXPECT_EQ(ErrorOf({flag}), "") << flag;
  const std::string path = Write("a.yml", "use_dpo: true\n");
  EXPECT_NE(ErrorOf({path}).find(path + ": use_dpo=true"), std::string::npos);
}

// Each flag where it would change the result, and nowhere else.
TEST_F(MaxTextFiles, RefusesOnlyInCommandsWhoseResultItIs) {
  const struct {
    const char* flag;
    Words refusing, taking;
  } cases[] = {{"use_dpo=true", {"train", "sft"}, {"decode", "convert", "check logits", "tokenizer chat", "inspect", "bench"}},
               {"dropout_rate=0.1", {"train"}, {"decode", "eval perplexity", "check golden", "convert"}},
               {"quantize_kvcache=true", {"decode", "eval mmlu", "check logits"}, {"train", "convert", "check files"}},
               {"ici_autoregressive_parallelism=4", {"train", "decode", "eval perplexity"}, {"convert", "check files", "tokenizer train"}},
               {"use_multimodal=true", {"train", "decode"}, {"convert", "tokenizer train"}},
               {"attention_bias=true", {"train", "decode", "check golden", "convert"}, {"check files", "checks", "tokenizer encode"}}};
  for (const auto& c : cases) {
    for (const std::string& command : c.refusing) EXPECT_NE(ErrorOf({c.flag}, command), "") << c.flag << ' ' << command;
    for (const std::string& command : c.taking) EXPECT_EQ(ErrorOf({c.flag}, command), "") << c.flag << ' ' << command;
  }
}

TEST_F(MaxTextFiles, RefusesUrls) {
  for (const char* flag :
       {"base_output_directory=gs://b/x", "load_parameters_path=s3://b", "dataset_path=a,gs://b/*.jsonl", "output=GS://b",
        "input=https://host/x", "json=file:///x", "tokenizer_path=hf://x/y", "golden_logits_path=gcs://x", "hf_lora_adapter_path=hf://x/y",
        "metrics_file=gs://x", "hf_path=gs://b", "run_name=gs://x/y", "hf_model_path=hdfs://x"})
    ExpectError({flag}, {flag, "local paths"});
  ExpectError({"gs://b/base.yml"}, {"gs://b/base.yml", "local paths"});
  ExpectError({"inspect", "gs://b/model"}, {"gs://b/model", "local paths"});
  ExpectError({Write("a.yml", "base_output_directory: gs://b\n")}, {"base_output_directory=gs://b"});
  EXPECT_EQ(ErrorOf({"output=a:/b", "prompt=see https://host", "dump_hlo_gcs_dir=gs://b"}), "");
}

}  // namespace
}  // namespace fathom
