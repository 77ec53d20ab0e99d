#include "fathom/checkpoint/hub/peft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fathom/base/error.h"
#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kModule = "model.layers.0.self_attn.o_proj";

class PeftTest : public testing::Test {
 protected:
  PeftTest() {
    const Shape shape = spec_.Find(std::string(kModule) + ".weight")->shape;
    tensors_ = {{PeftNameA(kModule), RandomTensor(DType::kF32, {3, shape[1]}, 1)},
                {PeftNameB(kModule), RandomTensor(DType::kBF16, {shape[0], 3}, 2)}};
    config_ = PeftConfig({3, 6, "base", {kModule}});
  }
  PeftAdapter Read() {
    WriteFileAtomically(folder_.path() / kAdapterConfig, config_.dump());
    WriteFile(folder_.path() / kAdapterFile, tensors_);
    return ReadPeftAdapter(folder_.path(), spec_);
  }
  std::string ErrorOf() {
    try {
      Read();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      return e.what();
    }
    return "none";
  }
  TemporaryFolder folder_;
  ModelSpec spec_{ParseModelConfig(TinyConfig(), "test")};
  std::vector<TestTensor> tensors_;
  Json config_;
};

TEST_F(PeftTest, ReadsWhatIsThere) {
  const PeftAdapter adapter = Read();
  ASSERT_EQ(adapter.modules.size(), 1u);
  const LowRank& low = adapter.modules.at(kModule);
  EXPECT_EQ(low.factor, 2);
  EXPECT_EQ(low.a.data<float>()[1], tensors_[0].tensor.data<float>()[1]);
  EXPECT_EQ(low.b.data<float>()[1], ToFloat(tensors_[1].tensor.data<BF16>()[1]));
}

TEST_F(PeftTest, RankStabilisedAdaptersCountAlphaOverTheRoot) {
  config_["use_rslora"] = true;
  EXPECT_DOUBLE_EQ(Read().modules.at(kModule).factor, 6 / std::sqrt(3.0));
}

TEST_F(PeftTest, WhatComputesSomethingElseIsRefused) {
  const Json good = config_;
  for (const auto& [key, value] : {std::pair<const char*, Json>{"use_dora", true},
                                   {"fan_in_fan_out", true},
                                   {"rank_pattern", {{"o_proj", 8}}},
                                   {"modules_to_save", {"lm_head"}},
                                   {"bias", "all"},
                                   {"peft_type", "IA3"},
                                   {"r", 0},
                                   {"lora_alpha", nullptr}}) {
    config_ = good;
    config_[key] = value;
    EXPECT_THAT(ErrorOf(), HasSubstr(kAdapterConfig)) << key;
  }
}

TEST_F(PeftTest, WhatDoesNotFitIsNamed) {
  const auto good = tensors_;
  tensors_.pop_back();
  EXPECT_THAT(ErrorOf(), AllOf(HasSubstr(kModule), HasSubstr("lora_B is missing")));
  tensors_ = good;
  tensors_[0].name = PeftNameA("model.layers.9.self_attn.o_proj");
  tensors_[1].name = PeftNameB("model.layers.9.self_attn.o_proj");
  EXPECT_THAT(ErrorOf(), HasSubstr("model.layers.9.self_attn.o_proj"));
  tensors_ = good;
  tensors_[0].name = "lora_A";
  EXPECT_THAT(ErrorOf(), HasSubstr("tensor lora_A"));
  tensors_ = good;
  tensors_[0].tensor = RandomTensor(DType::kF32, {4, tensors_[0].tensor.dim(1)}, 1);
  EXPECT_THAT(ErrorOf(), AllOf(HasSubstr(kModule), HasSubstr("expected")));
  tensors_ = good;
  tensors_[0].tensor.mutable_data<float>()[0] = std::nanf("");
  EXPECT_THAT(ErrorOf(), HasSubstr("not finite"));
  tensors_ = good;
  tensors_[0].name = PeftNameA("model.layers.1.mlp.gate");
  tensors_[1].name = PeftNameB("model.layers.1.mlp.gate");
  EXPECT_THAT(ErrorOf(), HasSubstr("model.layers.1.mlp.gate"));
  EXPECT_THROW(ReadPeftAdapter(folder_.path() / "absent", spec_), Error);
}

}  // namespace
}  // namespace fathom
