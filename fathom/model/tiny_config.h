// A tiny V3, or V3.2 with an indexer that chooses 6 keys, for tests.
#pragma once

#include "fathom/config/model_config.h"

namespace fathom {

inline ModelConfig TinyConfig(ModelFamily family, int64_t vocab_size) {
  ModelConfig c;
  c.family = family;
  c.vocab_size = vocab_size;
  c.hidden_size = 24;
  c.intermediate_size = 40;
  c.moe_intermediate_size = 20;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 2;
  c.first_k_dense_replace = 1;
  c.n_routed_experts = 4;
  c.num_experts_per_tok = 2;
  c.n_shared_experts = 1;
  c.topk_method = TopkMethod::kNoauxTc;
  c.scoring_func = ScoringFunc::kSigmoid;
  c.norm_topk_prob = true;
  c.q_lora_rank = 16;
  c.kv_lora_rank = 12;
  c.qk_nope_head_dim = 8;
  c.qk_rope_head_dim = 6;
  c.v_head_dim = 10;
  c.max_position_embeddings = 4096;
  if (family == ModelFamily::kV32) {
    c.index_n_heads = 14;
    c.index_head_dim = 8;
    c.index_topk = 6;
  }
  return c;
}

}  // namespace fathom
