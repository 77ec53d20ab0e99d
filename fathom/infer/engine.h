// A model ready to decode: weights mapped from a checkpoint, a cache for one sequence, scratch memory.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fathom/checkpoint/checkpoint.h"
#include "fathom/model/decoder.h"

namespace fathom {

class Engine {
 public:
  // Maps the checkpoint and checks every tensor against its config. capacity: the longest sequence, prompt and answer together.
  // Throws Error(kInput) for a bad checkpoint, Error(kUsage) for a capacity beyond max_position_embeddings.
  Engine(const std::filesystem::path& dir, DType compute, int64_t capacity);

  const ModelConfig& config() const { return checkpoint_.config(); }
  int64_t capacity() const { return cache_.capacity; }
  // Forgets the sequence.
  void Reset() { cache_.length = 0; }
  int64_t length() const { return cache_.length; }
  // Appends tokens, in chunks; returns the logits [V] after the last one, valid until the next call. ids is not empty.
  std::span<const float> Append(std::span<const int32_t> ids);

  int64_t WeightBytes() const;
  int64_t CacheBytes() const { return cache_.NumBytes(); }

 private:
  Checkpoint checkpoint_;
  DecoderParams params_;
  Decoder decoder_;
  DType compute_;
  KvCache cache_;
  Arena saved_, scratch_;
  Tensor logits_;  // [1,V] F32
};

}  // namespace fathom
