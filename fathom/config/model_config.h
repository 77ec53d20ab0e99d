// What a checkpoint's config.json says about the model: the authority on its mathematics. Field names are Hugging Face's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "fathom/base/error.h"
#include "fathom/base/json.h"

namespace fathom {

enum class ModelFamily { kV2, kV3, kV32 };                         // model_type deepseek_v2, deepseek_v3 (R1, V3.1), deepseek_v32
enum class TopkMethod { kGreedy, kGroupLimitedGreedy, kNoauxTc };  // greedy, group_limited_greedy, noaux_tc
enum class ScoringFunc { kSoftmax, kSigmoid };

// YaRN (Peng et al., 2023) as DeepSeek uses it.
struct RopeScaling {
  double factor = 1, beta_fast = 32, beta_slow = 1, mscale = 1, mscale_all_dim = 0;
  int64_t original_max_position_embeddings = 4096;
};

struct ModelConfig {
  ModelFamily family = ModelFamily::kV3;
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, moe_intermediate_size = 0;
  int64_t num_hidden_layers = 0, num_attention_heads = 0;
  int64_t first_k_dense_replace = 0, moe_layer_freq = 1;
  int64_t n_routed_experts = 0, num_experts_per_tok = 0, n_shared_experts = 0;  // n_routed_experts 0: every layer is dense
  int64_t n_group = 1, topk_group = 1;
  TopkMethod topk_method = TopkMethod::kGreedy;
  ScoringFunc scoring_func = ScoringFunc::kSoftmax;
  bool norm_topk_prob = false;
  double routed_scaling_factor = 1;
  int64_t q_lora_rank = 0;  // 0: plain q_proj
  int64_t kv_lora_rank = 0, qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;
  double rms_norm_eps = 1e-6, rope_theta = 10000;
  std::optional<RopeScaling> rope_scaling;
  int64_t max_position_embeddings = 0;
  int64_t num_nextn_predict_layers = 0;                           // MTP modules; their layers follow the main ones
  int64_t index_n_heads = 0, index_head_dim = 0, index_topk = 0;  // V3.2's indexer; 0: none
  int64_t bos_token_id = 0;
  std::vector<int64_t> eos_token_ids = {1};  // any of them ends an answer
  double initializer_range = 0.02;
  std::string torch_dtype = "bfloat16";
  bool fp8 = false;          // quantization_config: block FP8, 128 x 128
  bool scale_ue8m0 = false;  // its scale_fmt
  Json raw;                  // the file as read, so that saving keeps every field

  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  bool has_indexer() const { return index_topk > 0; }
  bool is_moe_layer(int64_t layer) const { return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0; }
};

// Reads and checks config.json. Throws Error(kInput) naming `where`, the field, what was found and what is allowed: a field
// missing, of the wrong type or out of range; fields that contradict each other; a field that would change the mathematics
// and is not understood, unless ignore_keys has it. A field that is understood is read all the same.
ModelConfig ParseModelConfig(const Json& json, const std::string& where, const std::vector<std::string>& ignore_keys = {});
ModelConfig ReadModelConfig(const std::filesystem::path& checkpoint_dir, const std::vector<std::string>& ignore_keys = {});

// Throws Error(code) naming `where`, the field, what was found and what is allowed: sizes that are out of range or contradict each other.
// What ParseModelConfig checks, for a config made otherwise.
void CheckModelConfig(const ModelConfig& config, const std::string& where, ErrorCode code = ErrorCode::kInput);

// "deepseek_v2", "deepseek_v3", "deepseek_v32".
const char* ModelTypeName(ModelFamily family);

// Says in both spellings, torch_dtype and transformers 5's dtype, what a folder's weights are: "float32", "bfloat16" ...
void SetStoredDType(const std::string& name, Json& config_json);

// config.json for a model made from flags (training from scratch); fields as the hub's files have them. Starts from
// config.raw where there is one, so that fields without effect are kept.
Json ModelConfigToJson(const ModelConfig& config);

}  // namespace fathom
