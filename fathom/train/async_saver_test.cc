// Checkpoints that are written beside training hold the step that they bear, whatever happens to the weights meanwhile.
#include "fathom/train/async_saver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/testing/folder.h"
#include "fathom/train/loop.h"
#include "fathom/train/memory.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

class AsyncSave : public testing::Test {
 protected:
  AsyncSave() { WriteCheckpoint(folder_.path() / "base", TinyConfig(), TinyTensors(TinyConfig())); }
  RunConfig Config(const std::string& name, std::vector<std::string> more) const {
    more.insert(more.end(), {"load_parameters_path=" + (folder_.path() / "base").string(), "dataset_type=synthetic", "max_target_length=16",
                             "per_device_batch_size=2", "dtype=float32", "weight_dtype=float32", "learning_rate=0.01", "run_name=" + name,
                             "steps=6", "base_output_directory=" + folder_.path().string()});
    return RunConfig::Resolve(more);
  }
  fs::path Checkpoints(const std::string& name) const { return folder_.path() / name / "checkpoints"; }
  TemporaryFolder folder_;
};

// Every file below `root`, by its path there.
std::map<std::string, std::string> Contents(const fs::path& root) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_regular_file()) contents[fs::relative(entry.path(), root).string()] = ReadTextFile(entry.path());
  }
  return contents;
}

TEST_F(AsyncSave, WritesWhatARunThatWaitsWrites) {
  for (const std::vector<std::string>& more : {std::vector<std::string>{},
                                               {"weight_dtype=bfloat16"},
                                               {"trainable_parameters_mask=.*mlp.*"},
                                               {"lora.enable_lora=true", "lora.lora_rank=2", "lora.lora_alpha=4"}}) {
    for (const char* beside : {"true", "false"}) {
      std::vector<std::string> flags = more;
      flags.insert(flags.end(), {"checkpoint_period=1", "max_num_checkpoints_to_keep=3", std::string("async_checkpointing=") + beside});
      EXPECT_EQ(RunTraining(Config(beside, flags)), 0);
    }
    const auto got = Contents(Checkpoints("true")), want = Contents(Checkpoints("false"));
    EXPECT_EQ(CompleteSteps(Checkpoints("true")), (std::vector<int64_t>{3, 4, 5}));
    EXPECT_TRUE(got == want);
    for (const char* beside : {"true", "false"}) fs::remove_all(folder_.path() / beside);
  }
}

TEST_F(AsyncSave, StepsMeanwhileChangeNothing) {
  const RunConfig config = Config("run", {"checkpoint_period=1"});
  const TrainOptions options = ReadTrainOptions(config);
  LoadedModel loaded = LoadModel(config, options, options.load_parameters_path);
  TrainSession session(loaded.config, options, std::move(loaded.params));
  AsyncSaver saver;
  for (int64_t step = 0; step < 3; ++step) {
    saver.Start(PrepareSave(options, loaded, {}, session, Json(), step), session);
    EXPECT_TRUE(saver.running());
    for (const NamedWeight& w : ListParams(session.params())) {
      if (w.weight->value.writable() && !w.weight->value.empty()) Fill(static_cast<float>(step + 1), w.weight->value.mutable_view());
    }
    for (const auto& moments : session.optimizer().moments()) Fill(7, moments.m);
    EXPECT_EQ(saver.Wait(), step);
    EXPECT_FALSE(saver.running());
    const Checkpoint saved = Checkpoint::Open(StepFolder(Checkpoints("run"), step));
    const Tensor norm = saved.Get("model.norm.weight");
    if (step > 0) {
      EXPECT_EQ(norm.data<float>()[0], static_cast<float>(step));
    }
    const auto state = SavedTrainState::Open(StepFolder(Checkpoints("run"), step));
    const Tensor mu = state.Get("mu", "model.norm.weight", DType::kF32, norm.shape());
    EXPECT_EQ(mu.data<float>()[0], step == 0 ? 0.0f : 7.0f);
  }
}

TEST_F(AsyncSave, AFailureEndsTheRunAndLeavesWhatWasThere) {
  const RunConfig config = Config("run", {"checkpoint_period=1"});
  const TrainOptions options = ReadTrainOptions(config);
  LoadedModel loaded = LoadModel(config, options, options.load_parameters_path);
  TrainSession session(loaded.config, options, std::move(loaded.params));
  AsyncSaver saver;
  fs::create_directories(Checkpoints("run").parent_path());
  std::ofstream(Checkpoints("run")) << "a file in the folder's place";
  saver.Start(PrepareSave(options, loaded, {}, session, Json(), 0), session);
  EXPECT_THROW(saver.Wait(), Error);
  EXPECT_FALSE(saver.running());
  EXPECT_EQ(ReadTextFile(Checkpoints("run")), "a file in the folder's place");
}

TEST_F(AsyncSave, TheCopyIsPlannedWhereItIsTaken) {
  const auto table = [&](std::vector<std::string> flags) {
    const RunConfig config = Config("run", std::move(flags));
    const TrainOptions options = ReadTrainOptions(config);
    return PlanTraining(options, NumThreads(), [&] { return LoadModel(config, options, options.load_parameters_path); }).memory;
  };
  std::vector<MemoryRow> rows = table({"checkpoint_period=2"});
  ASSERT_EQ(rows.back().what, kStateCopy);
  EXPECT_EQ(rows.back().bytes, rows[0].bytes + rows[3].bytes);
  const int64_t total = TotalBytes(rows);
  EXPECT_FALSE(DropStateCopy(rows, total));
  EXPECT_TRUE(DropStateCopy(rows, total - 1));
  EXPECT_LT(TotalBytes(rows), total);
  for (const char* flag : {"checkpoint_period=5", "checkpoint_period=100", "enable_checkpointing=false"})
    EXPECT_NE(table({flag}).back().what, kStateCopy) << flag;
  EXPECT_NE(table({"checkpoint_period=2", "async_checkpointing=false"}).back().what, kStateCopy);
}

}  // namespace
}  // namespace fathom
