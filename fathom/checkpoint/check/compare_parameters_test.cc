#include "fathom/checkpoint/check/compare_parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using testing::ElementsAre;
using testing::Pair;
using testing::UnorderedElementsAre;
using Found = std::vector<std::pair<std::string, std::string>>;  // cause and name

constexpr const char* kLayer = "model.layers.1.";

class CompareParametersTest : public testing::Test {
 protected:
  explicit CompareParametersTest(const Json& config = TinyConfig("deepseek_v32"))
      : config_(config), a_(TinyTensors(config_)), b_(TinyTensors(config_)) {}

  static Tensor& In(std::vector<TestTensor>& tensors, const std::string& name) { return FindTensor(tensors, kLayer + name).tensor; }
  Tensor& Of(const std::string& name) { return In(b_, name); }
  // TinyTensors are values of their own in a_ and in b_, the same ones.
  void Swap(const std::string& x, const std::string& y) { std::swap(Of(x), Of(y)); }
  // Rows `width` from `first` on of b become those of a, evens before odds.
  void Halve(const std::string& name, int64_t first, int64_t width) {
    const Tensor& from = In(a_, name);
    const int64_t columns = from.shape().rank() == 2 ? from.dim(1) : 1;
    for (int64_t i = 0; i < width; ++i) {
      const int64_t source = i % (width / 2) * 2 + i / (width / 2);
      std::copy_n(from.data<float>() + (first + source) * columns, columns, Of(name).mutable_data<float>() + (first + i) * columns);
    }
  }

  Found Compare() {
    WriteCheckpoint(folder_.path() / "a", config_, a_, 2);
    WriteCheckpoint(folder_.path() / "b", config_b_.is_null() ? config_ : config_b_, b_);
    const Checkpoint a = Checkpoint::Open(folder_.path() / "a"), b = Checkpoint::Open(folder_.path() / "b");
    Found found;
    layers_.clear();
    for (const ParameterDifference& d : CompareParameters(a, b, [](int64_t) {})) {
      found.emplace_back(CauseName(d.cause), d.name.starts_with(kLayer) ? d.name.substr(std::strlen(kLayer)) : d.name);
      layers_.push_back(d.layer);
    }
    return found;
  }

  TemporaryFolder folder_;
  Json config_, config_b_;
  std::vector<TestTensor> a_, b_;
  std::vector<int64_t> layers_;
};

TEST_F(CompareParametersTest, TheSame) { EXPECT_THAT(Compare(), ElementsAre()); }

TEST_F(CompareParametersTest, TheSameValuesInAWiderFormat) {
  for (auto* tensors : {&a_, &b_}) {
    for (TestTensor& t : *tensors) {
      if (t.name != "lm_head.weight") continue;
      for (int64_t i = 0; i < t.tensor.NumElements(); ++i) t.tensor.mutable_data<float>()[i] = RoundToBF16(t.tensor.data<float>()[i]);
    }
  }
  Tensor& head = FindTensor(b_, "lm_head.weight").tensor;
  Tensor narrow(DType::kBF16, head.shape());
  for (int64_t i = 0; i < head.NumElements(); ++i) narrow.mutable_data<BF16>()[i] = ToBF16(head.data<float>()[i]);
  head = narrow;
  EXPECT_THAT(Compare(), ElementsAre());
}

TEST_F(CompareParametersTest, ExpertsPermuted) {
  for (const char* m : {"gate", "up", "down"}) {
    const std::string x = std::string("mlp.experts.0.") + m + "_proj.weight", y = std::string("mlp.experts.2.") + m + "_proj.weight";
    Swap(x, y);
  }
  const Found found = Compare();
  EXPECT_EQ(found.size(), 6u);
  for (const auto& [cause, name] : found) {
    EXPECT_EQ(cause, "experts_permuted") << name;
    EXPECT_TRUE(name.starts_with("mlp.experts.0.") || name.starts_with("mlp.experts.2.")) << name;
  }
}

TEST_F(CompareParametersTest, RouterRowsInAnotherOrder) {
  float* bias = Of("mlp.gate.e_score_correction_bias").mutable_data<float>();
  std::swap(bias[0], bias[3]);
  float* gate = Of("mlp.gate.weight").mutable_data<float>();
  std::swap_ranges(gate, gate + 16, gate + 3 * 16);
  EXPECT_THAT(Compare(), UnorderedElementsAre(Pair("experts_permuted", "mlp.gate.e_score_correction_bias"),
                                              Pair("experts_permuted", "mlp.gate.weight")));
}

TEST_F(CompareParametersTest, GateAndUpSwapped) {
  Swap("mlp.shared_experts.gate_proj.weight", "mlp.shared_experts.up_proj.weight");
  Swap("mlp.experts.1.gate_proj.weight", "mlp.experts.1.up_proj.weight");
  std::swap(FindTensor(b_, "model.layers.0.mlp.gate_proj.weight").tensor, FindTensor(b_, "model.layers.0.mlp.up_proj.weight").tensor);
  const Found found = Compare();
  EXPECT_EQ(found.size(), 6u);
  for (const auto& [cause, name] : found) EXPECT_EQ(cause, "gate_up_swapped") << name;
}

TEST_F(CompareParametersTest, OneOfTheTwoAloneIsNoSwap) {
  Of("mlp.shared_experts.gate_proj.weight") = In(a_, "mlp.shared_experts.up_proj.weight");
  EXPECT_THAT(Compare(), ElementsAre(Pair("values", "mlp.shared_experts.gate_proj.weight")));
}

TEST_F(CompareParametersTest, Transposed) {
  Tensor& o = Of("self_attn.o_proj.weight");  // 16 x 16
  const float* from = In(a_, "self_attn.o_proj.weight").data<float>();
  for (int64_t i = 0; i < 256; ++i) o.mutable_data<float>()[i] = from[i % 16 * 16 + i / 16];
  EXPECT_THAT(Compare(), ElementsAre(Pair("transposed", "self_attn.o_proj.weight")));
}

TEST_F(CompareParametersTest, RotaryRowsInHalves) {
  Halve("self_attn.kv_a_proj_with_mqa.weight", 8, 4);
  for (const int64_t head : {0, 1}) {
    Halve("self_attn.q_b_proj.weight", head * 12 + 8, 4);
    Halve("self_attn.indexer.wq_b.weight", head * 8, 4);
  }
  Halve("self_attn.indexer.k_norm.weight", 0, 4);
  const Found found = Compare();
  EXPECT_EQ(found.size(), 4u);
  for (const auto& [cause, name] : found) EXPECT_EQ(cause, "rope_rows") << name;
}

TEST_F(CompareParametersTest, RotaryRowsInHalvesOnTheFirstSide) {
  Halve("self_attn.kv_a_proj_with_mqa.weight", 8, 4);
  std::swap(a_, b_);
  EXPECT_THAT(Compare(), ElementsAre(Pair("rope_rows", "self_attn.kv_a_proj_with_mqa.weight")));
}

TEST_F(CompareParametersTest, ZeroedRoundedAndOtherValues) {
  Tensor& down = Of("mlp.shared_experts.down_proj.weight");
  down = Tensor(DType::kF32, down.shape());
  Tensor& bias = Of("mlp.gate.e_score_correction_bias");
  for (int64_t i = 0; i < bias.NumElements(); ++i) bias.mutable_data<float>()[i] = RoundToBF16(bias.data<float>()[i]);
  Tensor& kv = Of("self_attn.kv_b_proj.weight");
  for (int64_t i = 0; i < kv.NumElements(); ++i) kv.mutable_data<float>()[i] = ToFloat(ToF16(kv.data<float>()[i]));
  Of("input_layernorm.weight").mutable_data<float>()[3] += 1e-6F;
  EXPECT_THAT(Compare(), UnorderedElementsAre(Pair("zeroed", "mlp.shared_experts.down_proj.weight"),
                                              Pair("rounded", "mlp.gate.e_score_correction_bias"),
                                              Pair("rounded", "self_attn.kv_b_proj.weight"), Pair("values", "input_layernorm.weight")));
}

TEST_F(CompareParametersTest, SaysTheLayer) {
  for (const char* name : {"model.embed_tokens.weight", "model.layers.1.input_layernorm.weight", "model.norm.weight"})
    FindTensor(b_, name).tensor.mutable_data<float>()[0] += 1;
  EXPECT_EQ(Compare().size(), 3u);
  EXPECT_THAT(layers_, ElementsAre(-1, 1, 2));
}

TEST_F(CompareParametersTest, AModuleMayBeMissing) {
  std::erase_if(b_, [](const TestTensor& t) { return t.name.starts_with("model.layers.2."); });
  EXPECT_THAT(Compare(), ElementsAre());
}

TEST_F(CompareParametersTest, OtherShapesAreRefused) {
  config_b_ = config_;
  config_b_["vocab_size"] = 25;
  b_ = TinyTensors(config_b_);
  EXPECT_THROW(Compare(), Error);
}

class CompareFp8Test : public CompareParametersTest {
 protected:
  CompareFp8Test() : CompareParametersTest(WithFp8(TinyConfig())) {}
};

TEST_F(CompareFp8Test, TheSame) { EXPECT_THAT(Compare(), ElementsAre()); }

TEST_F(CompareFp8Test, OtherScales) {
  Of("mlp.experts.3.up_proj.weight_scale_inv").mutable_data<float>()[0] *= 2;
  EXPECT_THAT(Compare(), ElementsAre(Pair("fp8_scales", "mlp.experts.3.up_proj.weight_scale_inv")));
}

TEST_F(CompareFp8Test, ExpertsPermutedWithTheirScales) {
  In(a_, "mlp.experts.0.up_proj.weight_scale_inv").mutable_data<float>()[0] *= 2;
  Of("mlp.experts.0.up_proj.weight_scale_inv").mutable_data<float>()[0] *= 2;
  for (const char* tensor : {"weight", "weight_scale_inv"})
    Swap(std::string("mlp.experts.0.up_proj.") + tensor, std::string("mlp.experts.1.up_proj.") + tensor);
  EXPECT_THAT(Compare(), UnorderedElementsAre(Pair("experts_permuted", "mlp.experts.0.up_proj.weight"),
                                              Pair("experts_permuted", "mlp.experts.1.up_proj.weight")));
}

// b is a, quantised: a's values lie between the codes.
TEST_F(CompareFp8Test, RoundedToCodes) {
  for (const std::string name : {"self_attn.o_proj.weight", "self_attn.kv_b_proj.weight"}) {
    const Tensor codes = Of(name);
    Tensor& exact = In(a_, name);
    exact = Tensor(DType::kBF16, codes.shape());
    const float off = name.find("o_proj") != name.npos ? 1.02F : 1.1F;  // within half a step, and beyond
    for (int64_t i = 0; i < codes.NumElements(); ++i)
      exact.mutable_data<BF16>()[i] = ToBF16(1e-3F * ToFloat(codes.data<F8E4M3>()[i]) * (i % 2 == 0 ? off : 1));
    EraseTensor(a_, kLayer + name + "_scale_inv");
  }
  // 1.18749e-3 rounds to this code and to a BF16 that is half a step of the code and some of its own away.
  Of("self_attn.o_proj.weight").mutable_data<F8E4M3>()[1] = ToF8E4M3(1.125F);
  In(a_, "self_attn.o_proj.weight").mutable_data<BF16>()[1] = ToBF16(1.18749e-3F);
  config_b_ = config_;
  config_.erase("quantization_config");
  for (TestTensor& t : a_) {
    if (t.tensor.dtype() == DType::kF8E4M3) t.tensor = RandomTensor(DType::kBF16, t.tensor.shape(), 1);
  }
  std::erase_if(a_, [](const TestTensor& t) { return t.name.ends_with(kScaleSuffix); });
  EXPECT_THAT(Compare(), testing::AllOf(testing::Contains(Pair("rounded", "self_attn.o_proj.weight")),
                                        testing::Contains(Pair("values", "self_attn.kv_b_proj.weight"))));
}

std::vector<std::string> DifferentKeys(const Json& a, const Json& b) {
  std::vector<std::string> keys;
  for (const ConfigDifference& d : CompareConfigs(ParseModelConfig(a, "a"), ParseModelConfig(b, "b"))) keys.push_back(d.key);
  return keys;
}

TEST(CompareConfigs, NamesFieldsThatCount) {
  const Json a = TinyConfig("deepseek_v32");
  Json b = a;
  b["rms_norm_eps"] = 1e-5;
  b["torch_dtype"] = "bfloat16";
  b["use_cache"] = false;
  b["index_topk"] = 5;
  EXPECT_THAT(DifferentKeys(a, b), UnorderedElementsAre("rms_norm_eps", "index_topk"));
  EXPECT_THAT(DifferentKeys(a, a), ElementsAre());
  const Json yarn = {{"type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 64}};
  Json c = a, d = a;
  c["rope_scaling"] = yarn;
  d["rope_scaling"] = yarn;
  d["rope_scaling"]["factor"] = 8;
  EXPECT_THAT(DifferentKeys(c, d), ElementsAre("rope_scaling.factor"));
  EXPECT_THAT(DifferentKeys(a, c), ElementsAre("rope_scaling"));
  const auto differences = CompareConfigs(ParseModelConfig(c, "c"), ParseModelConfig(d, "d"));
  EXPECT_EQ(differences[0].a, Json(4.0));
  EXPECT_EQ(differences[0].b, Json(8.0));
}

}  // namespace
}  // namespace fathom
