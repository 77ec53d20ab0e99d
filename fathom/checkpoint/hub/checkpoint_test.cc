// What the door lets through, what it reads beside the tensors, and what it says when it refuses.
#include "fathom/checkpoint/hub/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fathom/base/file.h"
#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:e3b0c442\nsize 4302348776\n";

class CheckpointTest : public testing::Test {
 protected:
  void Write(const std::filesystem::path& dir, const Json& config = TinyConfig(), size_t shards = 1) {
    WriteCheckpoint(dir, config, TinyTensors(TinyConfig()), shards);
  }
  std::string OpenError(const std::filesystem::path& dir, const OpenOptions& options = {}) {
    try {
      Checkpoint::Open(dir, options);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      return e.what();
    }
    return "";
  }
  const std::filesystem::path& dir() const { return folder_.path(); }
  TemporaryFolder folder_;
};

TEST_F(CheckpointTest, ATensorThatIsMissingIsNamed) {
  auto tensors = TinyTensors(TinyConfig());
  EraseTensor(tensors, "model.layers.1.mlp.gate.e_score_correction_bias");
  WriteCheckpoint(dir(), TinyConfig(), tensors);
  EXPECT_THAT(OpenError(dir()), AllOf(HasSubstr("e_score_correction_bias"), HasSubstr("missing")));
}

TEST_F(CheckpointTest, GenerationConfigDecidesOnTheEnd) {
  Write(dir());
  const auto eos = [&](const char* text) {
    WriteFileAtomically(dir() / "generation_config.json", text);
    return Checkpoint::Open(dir()).config().eos_token_ids;
  };
  const auto own = Checkpoint::Open(dir()).config().eos_token_ids;
  EXPECT_THAT(eos(R"({"eos_token_id": [3, 5]})"), ElementsAre(3, 5));
  EXPECT_THAT(eos(R"({"eos_token_id": 7, "max_length": 20})"), ElementsAre(7));
  EXPECT_EQ(eos(R"({"temperature": 0.6})"), own);
  EXPECT_EQ(eos(R"({"eos_token_id": null})"), own);
  WriteFileAtomically(dir() / "generation_config.json", R"({"eos_token_id": "x"})");
  EXPECT_THAT(OpenError(dir()), AllOf(HasSubstr("generation_config.json"), HasSubstr("eos_token_id")));
  WriteFileAtomically(dir() / "generation_config.json", R"({"do_sample": true, "temperature": 0.6, "top_p": 0.95})");
  EXPECT_EQ(Checkpoint::Open(dir()).generation().SamplingFlags(),
            "decode_sampling_strategy=nucleus decode_sampling_temperature=0.6 decode_sampling_nucleus_p=0.95");
}

TEST_F(CheckpointTest, ARunsFolderNamesItsNewestCheckpoint) {
  for (const char* step : {"3", "12"}) {
    Write(dir() / "checkpoints" / step);
    std::filesystem::create_directory(TrainStateFolder(dir() / "checkpoints" / step));
    WriteTrainStateFile(dir() / "checkpoints" / step, std::stoi(step), Json::object());
  }
  const std::string newest = (dir() / "checkpoints" / "12").string();
  EXPECT_THAT(OpenError(dir()), HasSubstr(newest));
  EXPECT_THAT(OpenError(dir() / "checkpoints"), HasSubstr(newest));
  EXPECT_EQ(OpenError(newest), "");
}

TEST_F(CheckpointTest, GitLfsPointersAreCalledThat) {
  const std::pair<const char*, size_t> files[] = {{"config.json", 1}, {kSingleFile, 1}, {kIndexFile, 3}, {"generation_config.json", 1}};
  for (const auto& [file, shards] : files) {
    const auto place = dir() / (std::string(file) + "-case");
    Write(place, TinyConfig(), shards);
    WriteFileAtomically(place / file, kPointer);
    EXPECT_THAT(OpenError(place), AllOf(HasSubstr(file), HasSubstr("Git LFS pointer"))) << file;
    EXPECT_THROW(InputFile(place / file), Error) << file;
  }
}

TEST_F(CheckpointTest, KeysOfOtherToolsAndKeysThatTheUserVouchesFor) {
  Json config = TinyConfig();
  config.update({{"unsloth_fixed", true}, {"_attn_implementation_autoset", true}, {"tokenizer_class", "X"}, {"max_length", 20}});
  Write(dir() / "harmless", config);
  EXPECT_EQ(OpenError(dir() / "harmless"), "");
  config["logit_cap"] = 30;
  Write(dir() / "unknown", config);
  EXPECT_THAT(OpenError(dir() / "unknown"), AllOf(HasSubstr("logit_cap"), HasSubstr("ignore_config_keys=[logit_cap]")));
  EXPECT_EQ(OpenError(dir() / "unknown", {.ignore_config_keys = {"logit_cap"}}), "");
  config["hidden_act"] = "gelu";  // understood, so it stays an error
  Write(dir() / "other", config);
  EXPECT_THAT(OpenError(dir() / "other", {.ignore_config_keys = {"logit_cap", "hidden_act"}}), HasSubstr("hidden_act"));
}

TEST_F(CheckpointTest, BothSpellingsOfTheDType) {
  Json config = TinyConfig();
  config.erase("torch_dtype");
  config["dtype"] = "bfloat16";
  EXPECT_EQ(ParseModelConfig(config, "test").torch_dtype, "bfloat16");
  SetStoredDType("float32", config);
  EXPECT_EQ(config["dtype"], "float32");
  EXPECT_EQ(config["torch_dtype"], "float32");
}

TEST_F(CheckpointTest, StepsThatNoRunCounts) {
  const auto error = [&](const Json& values) -> std::string {
    std::filesystem::create_directories(TrainStateFolder(dir()));
    WriteFileAtomically(TrainStateFolder(dir()) / "state.json", values.dump());
    try {
      SavedTrainState::Open(dir());
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error({{"format", 1}, {"step", 4}, {"optimizer_steps", 5}}), "");
  EXPECT_THAT(error({{"format", 1}, {"step", INT64_MAX}}), HasSubstr("step is 9223372036854775807"));
  EXPECT_THAT(error({{"format", 1}, {"step", 18446744073709551615u}}), HasSubstr("step"));
  EXPECT_THAT(error({{"format", 1}, {"step", -1}}), HasSubstr("step is -1"));
  EXPECT_THAT(error({{"format", 1}, {"step", 4}, {"optimizer_steps", -5}}), HasSubstr("optimizer_steps is -5"));
}

}  // namespace
}  // namespace fathom
