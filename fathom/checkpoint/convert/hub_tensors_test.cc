#include "fathom/checkpoint/convert/hub_tensors.h"

#include <gtest/gtest.h>

#include <map>

#include "fathom/checkpoint/convert/convert.h"
#include "fathom/checkpoint/hub/validate.h"
#include "fathom/config/model_from_flags.h"

namespace fathom {
namespace {

ModelConfig Model(const std::string& name) { return ModelFromFlags(RunConfig::Resolve({"model_name=" + name, "mtp_num_layers=1"})); }

int64_t Bytes(const std::vector<TensorInfo>& tensors) {
  int64_t bytes = 0;
  for (const TensorInfo& tensor : tensors) bytes += tensor.NumBytes();
  return bytes;
}

// Every parameter once, a scale per block of 128 x 128.
TEST(HubTensors, HoldsEveryParameter) {
  const ModelConfig model = Model("deepseek3-671b");
  int64_t elements = 0, scales = 0;
  for (const TensorInfo& tensor : HubTensors(model, true)) {
    (tensor.name.ends_with(kScaleSuffix) ? scales : elements) += tensor.shape.NumElements();
  }
  const ParameterCounts counts = CountParameters(model);
  const int64_t shared = 2 * model.vocab_size * model.hidden_size, biases = 59 * model.n_routed_experts;
  EXPECT_EQ(elements, counts.total + counts.mtp + shared + biases);
  EXPECT_NEAR(static_cast<double>(scales), static_cast<double>(elements) / (128 * 128), 1e6);
}

// The index of deepseek-ai/DeepSeek-V3 says total_size 688586727753 and its BF16 conversion 2 bytes a parameter.
TEST(HubTensors, SizesAreThoseOfTheHub) {
  const ModelConfig model = Model("deepseek3-671b");
  EXPECT_NEAR(static_cast<double>(Bytes(HubTensors(model, true))), 688.6e9, 0.1e9);
  EXPECT_NEAR(static_cast<double>(Bytes(HubTensors(model, false))), 2 * 684.53e9, 0.1e9);
}

TEST(HubTensors, DtypesAreThoseOfTheHub) {
  std::map<std::string, DType> dtypes;
  for (const TensorInfo& tensor : HubTensors(Model("deepseek3.2-671b"), true)) dtypes[tensor.name] = tensor.dtype;
  const std::string layer = "model.layers.3.";
  EXPECT_EQ(dtypes.at(layer + "self_attn.q_a_proj.weight"), DType::kF8E4M3);
  EXPECT_EQ(dtypes.at(layer + "self_attn.indexer.wk.weight"), DType::kF8E4M3);
  EXPECT_EQ(dtypes.at(layer + "self_attn.q_a_proj.weight_scale_inv"), DType::kF32);
  EXPECT_EQ(dtypes.at(layer + "self_attn.indexer.k_norm.bias"), DType::kF32);
  EXPECT_EQ(dtypes.at(layer + "mlp.gate.e_score_correction_bias"), DType::kF32);
  EXPECT_EQ(dtypes.at(layer + "mlp.gate.weight"), DType::kBF16);
  EXPECT_EQ(dtypes.at(layer + "input_layernorm.weight"), DType::kBF16);
}

ConvertPlan Plan(const std::string& name, CheckpointFormat to, TargetDType dtype) {
  ConvertOptions options;
  options.model = [name] { return Model(name); };
  options.output = "unused";
  options.to = to;
  options.dtype.target = dtype;
  return PlanConvert(options);
}

TEST(HubTensors, ConversionsArePlannedWithoutAFile) {
  for (const std::string name : {"deepseek3-671b", "deepseek3.2-671b"}) {
    const ConvertPlan bf16 = Plan(name, CheckpointFormat::kHuggingFace, TargetDType::kBF16);
    EXPECT_EQ(bf16.input_bytes, Bytes(HubTensors(Model(name), true)));
    EXPECT_NEAR(static_cast<double>(bf16.output_bytes), static_cast<double>(Bytes(HubTensors(Model(name), false))), 0.1e9);
    EXPECT_GT(bf16.files, 100);
    const ConvertPlan orbax = Plan(name, CheckpointFormat::kOrbax, TargetDType::kBF16);
    EXPECT_NEAR(static_cast<double>(orbax.output_bytes), static_cast<double>(bf16.output_bytes),
                0.01 * static_cast<double>(bf16.output_bytes));
  }
}

}  // namespace
}  // namespace fathom
