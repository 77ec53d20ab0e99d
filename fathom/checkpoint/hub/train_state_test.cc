#include "fathom/checkpoint/hub/train_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class TrainStateTest : public testing::Test {
 protected:
  // Every value of the checkpoint is its step, so that a mixture of two would show.
  void Save(int64_t step) const {
    Tensor value(DType::kF32, {64, 64}), half(DType::kBF16, {64, 64});
    for (int64_t i = 0; i < value.NumElements(); ++i) value.mutable_data<float>()[i] = static_cast<float>(step);
    for (int64_t i = 0; i < half.NumElements(); ++i) half.mutable_data<BF16>()[i] = ToBF16(static_cast<float>(step));
    TrainState state;
    state.step = step;
    state.values = {{"seed", 7}, {"cursor", {{"document", step}}}};
    state.slots["mu"] = {{"w", half}};
    state.slots["nu"] = {{"w", value}};
    SaveTrainCheckpoint(root_, TinyConfig(), {{"w", value}}, state, {});
  }
  void ExpectSound(int64_t step) const {
    const auto folder = StepFolder(root_, step);
    EXPECT_EQ(TensorFolder::Open(folder).Get("w").data<float>()[4095], static_cast<float>(step));
    const auto state = SavedTrainState::Open(folder);
    EXPECT_EQ(state.step(), step);
    EXPECT_EQ(state.values()["seed"], 7);
    EXPECT_EQ(state.values()["cursor"]["document"], step);
    EXPECT_EQ(state.Get("nu", "w", DType::kF32, {64, 64}).data<float>()[4095], static_cast<float>(step));
    EXPECT_EQ(ToFloat(state.Get("mu", "w", DType::kBF16, {64, 64}).data<BF16>()[0]), static_cast<float>(step));
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(root_)) names.push_back(entry.path().filename().string());
    std::ranges::sort(names);
    return names;
  }
  TemporaryFolder folder_;
  const std::filesystem::path root_ = folder_.path() / "run" / "checkpoints";
};

TEST_F(TrainStateTest, RoundTripAndLatest) {
  EXPECT_EQ(LatestStep(root_), std::nullopt);
  for (const int64_t step : {0, 9, 10, 100}) Save(step);
  EXPECT_THAT(CompleteSteps(root_), ElementsAre(0, 9, 10, 100));
  EXPECT_EQ(LatestStep(root_), 100);
  for (const int64_t step : {0, 9, 10, 100}) ExpectSound(step);
  Save(10);
  ExpectSound(10);
  EXPECT_THAT(Names(), ElementsAre("0", "10", "100", "9"));
}

TEST_F(TrainStateTest, LeftoversAreNeverPickedUp) {
  Save(5);
  for (const char* name : {".6.partial", ".4.removed", "7", "08", "-9", "9x", "99999999999999999999", "tmp"})
    std::filesystem::create_directory(root_ / name);
  std::filesystem::copy(root_ / "5", root_ / ".8.partial", std::filesystem::copy_options::recursive);
  EXPECT_THAT(CompleteSteps(root_), ElementsAre(5));
  PruneCheckpoints(root_, 1);
  EXPECT_THAT(Names(), ElementsAre("-9", "08", "5", "7", "99999999999999999999", "9x", "tmp"));
}

TEST_F(TrainStateTest, PruningKeepsTheLatest) {
  for (const int64_t step : {1, 2, 3, 20}) Save(step);
  PruneCheckpoints(root_, 0);
  EXPECT_THAT(Names(), ElementsAre("1", "2", "20", "3"));
  PruneCheckpoints(root_, 2);
  EXPECT_THAT(Names(), ElementsAre("20", "3"));
  ExpectSound(20);
}

TEST_F(TrainStateTest, SurvivesBeingKilledAtAnyMoment) {
  for (int round = 0; round < 12; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int64_t step = 1;; ++step) {
        Save(step % 3);  // new folders and replaced ones
        if (step % 4 == 0) PruneCheckpoints(root_, 1);
      }
    }
    ::usleep(static_cast<useconds_t>(15000 + 7300 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    for (const int64_t step : CompleteSteps(root_)) ExpectSound(step);
  }
  Save(50);
  ExpectSound(50);
  PruneCheckpoints(root_, 1);
  EXPECT_THAT(Names(), ElementsAre("50"));
}

TEST_F(TrainStateTest, BrokenStates) {
  Save(1);
  const auto folder = StepFolder(root_, 1);
  const auto error = [&] {
    try {
      SavedTrainState::Open(folder);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      return std::string(e.what());
    }
    return std::string();
  };
  const auto state = SavedTrainState::Open(folder);
  EXPECT_TRUE(state.Has("mu", "w"));
  EXPECT_FALSE(state.Has("mu", "x"));
  EXPECT_FALSE(state.HasSlot("xi"));
  EXPECT_THROW(state.Get("xi", "w", DType::kF32, {64, 64}), Error);
  EXPECT_THROW(state.Get("mu", "x", DType::kF32, {64, 64}), Error);
  EXPECT_THROW(state.Get("mu", "w", DType::kF32, {64, 64}), Error);
  EXPECT_THROW(state.Get("nu", "w", DType::kF32, {64, 63}), Error);
  for (const char* text : {"{", "[]", "{\"format\": 2, \"step\": 1}", "{\"format\": 1}", "{\"format\": 1, \"step\": \"x\"}"}) {
    std::ofstream(folder / "train_state" / "state.json") << text;
    EXPECT_THAT(error(), HasSubstr("state.json")) << text;
  }
  std::ofstream(folder / "train_state" / "state.json") << "{\"format\": 1, \"step\": 1}";
  std::ofstream(folder / "train_state" / "mu.safetensors") << "short";
  EXPECT_THAT(error(), HasSubstr("mu.safetensors"));
}

}  // namespace
}  // namespace fathom
