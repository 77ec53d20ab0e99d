// The key-value cache of one sequence: per layer the normed latent and the rotated key (MLA), and the indexer's keys (V3.2).
#pragma once

#include <vector>

#include "fathom/config/model_config.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

struct LayerCache {
  Tensor latent_rope;   // [capacity, R+Dr], compute dtype
  Tensor indexer_keys;  // [capacity, index_head_dim], compute dtype; empty without an indexer
};

struct KvCache {
  // layers: how many decoder layers keep a cache (main ones, then MTP modules).
  KvCache(const ModelConfig& config, int64_t layers, int64_t capacity, DType dtype);
  std::vector<LayerCache> layers;
  int64_t length = 0;  // tokens stored; lowering it rolls the cache back
  int64_t capacity = 0;
  int64_t NumBytes() const;
  // The same from the sizes alone, without allocating.
  static int64_t PlannedBytes(const ModelConfig& config, int64_t layers, int64_t capacity, DType dtype);
};

}  // namespace fathom
