// Tiny checkpoints for tests, made in code.
#pragma once

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/rng.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/checkpoint/hub/staged_folder.h"
#include "fathom/checkpoint/hub/validate.h"
#include "fathom/checkpoint/safetensors/safetensors.h"

namespace fathom {

inline Json TinyConfig(const std::string& model_type = "deepseek_v3") {
  Json c = {{"model_type", model_type},
            {"vocab_size", 24},
            {"hidden_size", 16},
            {"intermediate_size", 20},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 2},
            {"q_lora_rank", 12},
            {"kv_lora_rank", 8},
            {"qk_nope_head_dim", 8},
            {"qk_rope_head_dim", 4},
            {"v_head_dim", 8},
            {"max_position_embeddings", 64},
            {"n_routed_experts", 4},
            {"num_experts_per_tok", 2},
            {"moe_intermediate_size", 8},
            {"first_k_dense_replace", 1},
            {"n_shared_experts", 1},
            {"n_group", 2},
            {"topk_group", 1},
            {"routed_scaling_factor", 2.5},
            {"norm_topk_prob", true},
            {"rms_norm_eps", 1e-6},
            {"rope_theta", 10000.0},
            {"torch_dtype", "float32"}};
  if (model_type == "deepseek_v2") {
    c["q_lora_rank"] = nullptr;
    c["topk_method"] = "greedy";
    c["scoring_func"] = "softmax";
  } else {
    c["num_nextn_predict_layers"] = 1;
  }
  if (model_type == "deepseek_v32") c.update({{"index_n_heads", 2}, {"index_head_dim", 8}, {"index_topk", 4}});
  return c;
}

inline Json WithFp8(Json config) {
  config["quantization_config"] = {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {128, 128}}};
  config["torch_dtype"] = "bfloat16";
  return config;
}

struct TestTensor {
  std::string name;
  Tensor tensor;
};

inline Tensor RandomTensor(DType dtype, Shape shape, uint64_t stream) {
  Tensor tensor(dtype, shape);
  const CounterRng rng(1, stream);
  for (int64_t i = 0; i < shape.NumElements(); ++i) {
    const float x = 0.02f * static_cast<float>(rng.Normal(static_cast<uint64_t>(i)));
    if (dtype == DType::kF32) tensor.mutable_data<float>()[i] = x;
    if (dtype == DType::kBF16) tensor.mutable_data<BF16>()[i] = ToBF16(x);
    if (dtype == DType::kF8E4M3) tensor.mutable_data<F8E4M3>()[i] = ToF8E4M3(1000 * x);
  }
  return tensor;
}

// Every tensor of the config with normal values: F32, or as the hub's FP8 files where the config says so.
inline std::vector<TestTensor> TinyTensors(const Json& json) {
  const ModelConfig config = ParseModelConfig(json, "test");
  std::vector<TestTensor> tensors;
  for (const ParamSpec& expected : ModelSpec(config)) {
    const bool fp8 = config.fp8 && expected.facts().storage == HubStorage::kFp8, f32 = !config.fp8 || LearnsByCounting(expected.role);
    tensors.push_back({expected.name, RandomTensor(fp8   ? DType::kF8E4M3
                                                   : f32 ? DType::kF32
                                                         : DType::kBF16,
                                                   expected.shape, HashName(expected.name))});
    if (!fp8) continue;
    Tensor scale(DType::kF32, ScaleShape(expected.shape));
    for (int64_t i = 0; i < scale.NumElements(); ++i) scale.mutable_data<float>()[i] = 1e-3f;
    tensors.push_back({expected.name + "_scale_inv", scale});
  }
  return tensors;
}

inline TestTensor& FindTensor(std::vector<TestTensor>& tensors, const std::string& name) {
  for (TestTensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  FATHOM_CHECK(false, "{}", name);
}
inline void EraseTensor(std::vector<TestTensor>& tensors, const std::string& name) {
  std::erase_if(tensors, [&](const TestTensor& t) { return t.name == name; });
}

inline void WriteFile(const std::filesystem::path& path, const std::vector<TestTensor>& tensors) {
  std::vector<TensorInfo> infos;
  for (const TestTensor& t : tensors) infos.push_back({t.name, t.tensor.dtype(), t.tensor.shape()});
  SafetensorsWriter writer(path, infos);
  for (size_t i = 0; i < tensors.size(); ++i) writer.Write(i, tensors[i].tensor);
  writer.Close();
}

inline std::string ShardName(size_t i, size_t of) { return fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, of); }

// A folder with config.json and the tensors, dealt to shards in turn (so that neighbours lie in different files).
inline void WriteCheckpoint(const std::filesystem::path& dir, const Json& config, const std::vector<TestTensor>& tensors,
                            size_t shards = 1) {
  std::filesystem::create_directories(dir);
  WriteFileAtomically(dir / "config.json", config.dump());
  if (shards == 1) return WriteFile(dir / kSingleFile, tensors);
  Json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", Json::object()}};
  for (size_t s = 0; s < shards; ++s) {
    std::vector<TestTensor> part;
    for (size_t i = s; i < tensors.size(); i += shards) part.push_back(tensors[i]);
    WriteFile(dir / ShardName(s, shards), part);
    for (const TestTensor& t : part) index["weight_map"][t.name] = ShardName(s, shards);
  }
  WriteFileAtomically(dir / kIndexFile, index.dump());
}

// The pieces that training and conversions write a model with, put together: dir is complete or unchanged.
inline void SaveCheckpoint(const std::filesystem::path& dir, const Json& config, const std::vector<NamedTensor>& tensors,
                           const SaveOptions& options) {
  StagedFolder stage(dir, options.overwrite);
  WriteModelFiles(stage.path(), config, tensors, options.max_shard_size);
  CopyFiles(options.companions, stage.path());
  stage.Commit();
}

}  // namespace fathom
