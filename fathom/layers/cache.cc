#include "fathom/layers/cache.h"

namespace fathom {

KvCache::KvCache(const ModelConfig& c, int64_t count, int64_t rows, DType dtype) : capacity(rows) {
  for (int64_t i = 0; i < count; ++i) {
    LayerCache layer{Tensor(dtype, {rows, c.kv_lora_rank + c.qk_rope_head_dim}), {}};
    if (c.has_indexer()) layer.indexer_keys = Tensor(dtype, {rows, c.index_head_dim});
    layers.push_back(std::move(layer));
  }
}

int64_t KvCache::NumBytes() const {
  int64_t bytes = 0;
  for (const LayerCache& layer : layers) bytes += layer.latent_rope.NumBytes() + layer.indexer_keys.NumBytes();
  return bytes;
}

int64_t KvCache::PlannedBytes(const ModelConfig& c, int64_t layers, int64_t capacity, DType dtype) {
  const int64_t width = c.kv_lora_rank + c.qk_rope_head_dim + (c.has_indexer() ? c.index_head_dim : 0);
  return layers * capacity * width * DTypeSize(dtype);
}

}  // namespace fathom
