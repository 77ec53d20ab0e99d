#include "fathom/checkpoint/safetensors/tensor_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using testing::HasSubstr;

class TensorFolderTest : public testing::Test {
 protected:
  std::string OpenError() {
    try {
      Checkpoint::Open(dir());
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      return e.what();
    }
    return "";
  }
  // Writes an FP8 matrix with these scales and returns the error of GetWeight.
  std::string WeightError(const std::vector<TestTensor>& tensors) {
    WriteFile(dir() / kSingleFile, tensors);
    try {
      TensorFolder::Open(dir()).GetWeight("w");
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      return e.what();
    }
    return "";
  }
  void ChangeIndex(const std::function<void(Json&)>& change) {
    Json index = ReadJsonFile(dir() / kIndexFile);
    change(index);
    WriteFileAtomically(dir() / kIndexFile, index.dump());
  }
  const std::filesystem::path& dir() const { return folder_.path(); }
  TemporaryFolder folder_;
};

TEST_F(TensorFolderTest, OneFileAndSeveralHoldTheSame) {
  const Json config = TinyConfig();
  const auto tensors = TinyTensors(config);
  WriteCheckpoint(dir() / "one", config, tensors);
  WriteCheckpoint(dir() / "five", config, tensors, 5);
  const auto one = Checkpoint::Open(dir() / "one"), five = Checkpoint::Open(dir() / "five");
  EXPECT_EQ(five.files().size(), 5u);
  EXPECT_EQ(one.names().size(), tensors.size());
  EXPECT_EQ(one.NumBytes(), five.NumBytes());
  EXPECT_EQ(one.config().hidden_size, 16);
  for (const TestTensor& t : tensors) {
    const auto size = static_cast<size_t>(t.tensor.NumBytes());
    EXPECT_EQ(std::memcmp(one.Get(t.name).view().raw(), t.tensor.view().raw(), size), 0) << t.name;
    EXPECT_EQ(std::memcmp(five.Get(t.name).view().raw(), t.tensor.view().raw(), size), 0) << t.name;
  }
  EXPECT_EQ(one.Find("x"), nullptr);
  EXPECT_THROW(one.Get("x"), Error);
}

TEST_F(TensorFolderTest, FoldersWithoutAModel) {
  EXPECT_THAT(OpenError(), HasSubstr("config.json"));
  WriteFileAtomically(dir() / "config.json", TinyConfig().dump());
  EXPECT_THAT(OpenError(), HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
  WriteFileAtomically(dir() / "model-00001-of-00002.safetensors", "");
  EXPECT_THAT(OpenError(), HasSubstr("no model.safetensors.index.json"));
  EXPECT_THROW(TensorFolder::Open(dir() / "absent"), Error);
  EXPECT_THROW(TensorFolder::Open(dir() / "config.json"), Error);
}

TEST_F(TensorFolderTest, IndexAndFilesMustAgree) {
  const Json config = TinyConfig();
  const auto write = [&] { WriteCheckpoint(dir(), config, TinyTensors(config), 3); };
  const std::string first = ShardName(0, 3), second = ShardName(1, 3);
  write();
  EXPECT_EQ(OpenError(), "");
  ChangeIndex([&](Json& index) { index["weight_map"]["lm_head.weight"] = "model-00009-of-00003.safetensors"; });
  EXPECT_THAT(OpenError(), testing::AllOf(HasSubstr("lm_head.weight"), HasSubstr("model-00009"), HasSubstr("not there")));
  write();
  ChangeIndex([&](Json& index) { index["weight_map"]["model.embed_tokens.weight"] = second; });
  EXPECT_THAT(OpenError(), testing::AllOf(HasSubstr(second), HasSubstr("model.embed_tokens.weight"), HasSubstr("is not in it")));
  write();
  ChangeIndex([&](Json& index) { index["weight_map"].erase("model.embed_tokens.weight"); });
  EXPECT_THAT(OpenError(), testing::AllOf(HasSubstr(first), HasSubstr("model.embed_tokens.weight"), HasSubstr("does not name it")));
  write();
  ChangeIndex([&](Json& index) { index["weight_map"]["ghost"] = first; });
  EXPECT_THAT(OpenError(), HasSubstr("ghost"));
  write();
  for (const char* name : {"../model.safetensors", "", "..", "a/b"}) {
    ChangeIndex([&](Json& index) { index["weight_map"]["lm_head.weight"] = name; });
    EXPECT_THAT(OpenError(), HasSubstr("not the name of a file"));
  }
  ChangeIndex([&](Json& index) { index["weight_map"]["lm_head.weight"] = 7; });
  EXPECT_THAT(OpenError(), HasSubstr("not the name of a file"));
  ChangeIndex([&](Json& index) { index.erase("weight_map"); });
  EXPECT_THAT(OpenError(), HasSubstr("no weight_map"));
  WriteFileAtomically(dir() / kIndexFile, std::string(10000, '['));
  EXPECT_THAT(OpenError(), HasSubstr("deeper"));
}

TEST_F(TensorFolderTest, FilesThatTheIndexDoesNotName) {
  const Json config = TinyConfig();
  const auto tensors = TinyTensors(config);
  WriteCheckpoint(dir(), config, tensors, 2);
  WriteFile(dir() / "other.safetensors", tensors);
  EXPECT_EQ(OpenError(), "");
  WriteFile(dir() / "model-00003-of-00003.safetensors", tensors);
  EXPECT_THAT(OpenError(), HasSubstr("model-00003-of-00003.safetensors lies there"));
}

TEST_F(TensorFolderTest, TensorInTwoFiles) {
  const Json config = TinyConfig();
  const auto tensors = TinyTensors(config);
  WriteCheckpoint(dir(), config, tensors, 2);
  WriteFile(dir() / ShardName(1, 2), tensors);
  EXPECT_THAT(OpenError(), HasSubstr("is also in"));
}

TEST_F(TensorFolderTest, Fp8WeightsComeWithTheirScales) {
  const Json config = WithFp8(TinyConfig());
  WriteCheckpoint(dir(), config, TinyTensors(config), 4);
  const auto checkpoint = Checkpoint::Open(dir());
  const std::string name = "model.layers.0.self_attn.o_proj.weight";
  EXPECT_NE(&checkpoint.FileOf(name), &checkpoint.FileOf(name + "_scale_inv"));
  const Weight weight = checkpoint.GetWeight(name);
  EXPECT_EQ(weight.value.dtype(), DType::kF8E4M3);
  EXPECT_EQ(weight.scale_inv.data<float>()[0], 1e-3f);
  EXPECT_TRUE(checkpoint.GetWeight("lm_head.weight").scale_inv.empty());
}

TEST_F(TensorFolderTest, ScalesThatDoNotFit) {
  const TestTensor weight{"w", RandomTensor(DType::kF8E4M3, {130, 5}, 1)};
  const auto with_scale = [&](Tensor scale) { return std::vector<TestTensor>{weight, {"w_scale_inv", std::move(scale)}}; };
  EXPECT_EQ(WeightError(with_scale(Tensor(DType::kF32, {2, 1}))), "");
  EXPECT_EQ(WeightError(with_scale(Tensor(DType::kF8E8M0, {2, 1}))), "");
  EXPECT_EQ(WeightError(with_scale(Tensor(DType::kU8, {2, 1}))), "");
  EXPECT_EQ(TensorFolder::Open(dir()).GetWeight("w").scale_inv.dtype(), DType::kF8E8M0);
  EXPECT_THAT(WeightError({weight}), HasSubstr("w_scale_inv is missing"));
  EXPECT_THAT(WeightError(with_scale(Tensor(DType::kF32, {1, 1}))), HasSubstr("w_scale_inv is [1, 1], expected [2, 1]"));
  EXPECT_THAT(WeightError(with_scale(Tensor(DType::kBF16, {2, 1}))), HasSubstr("is BF16, scales must be"));
  EXPECT_THAT(WeightError({{"w", RandomTensor(DType::kF8E4M3, {4}, 1)}}), HasSubstr("only matrices"));
}

}  // namespace
}  // namespace fathom
