// A model ready to decode: weights mapped from a checkpoint, a cache for one sequence, scratch memory.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/infer/drafter.h"
#include "fathom/model/decoder.h"

namespace fathom {

// Whether and how the engine drafts tokens with the checkpoint's MTP module.
struct DraftOptions {
  bool enabled = false;
  MtpInput input = MtpInput::kAfterNorm;
  bool own_head = false;  // the module's copies of embedding and head instead of the main model's
};

class Engine {
 public:
  // Maps the checkpoint and checks every tensor against its config. capacity: the longest sequence, prompt and answer together.
  // Throws Error(kInput) for a bad checkpoint, Error(kUsage) for a capacity beyond max_position_embeddings.
  // With drafts also Error(kUsage) for a checkpoint without an MTP module.
  Engine(const std::filesystem::path& dir, DType compute, int64_t capacity, const DraftOptions& drafts = {},
         const LayerOptions& layers = {});

  const ModelConfig& config() const { return checkpoint_.config(); }
  int64_t capacity() const { return cache_.capacity; }
  // Forgets the sequence.
  void Reset();
  int64_t length() const { return cache_.length; }
  // Appends tokens, in chunks; returns the logits [V] after the last one, valid until the next call. ids is not empty.
  std::span<const float> Append(std::span<const int32_t> ids);

  // Speculation, only with drafts. Logits [V] for the token after `last`, which follows the sequence but is not appended, by the MTP
  // module; then for the token after `drafted`, and so on. Valid until the next call.
  std::span<const float> FirstDraft(int32_t last);
  std::span<const float> NextDraft(int32_t drafted);
  // Appends tokens in one pass; logits [M,V] F32 after each, valid until the next call. Keep says how many of them stay.
  ConstView Verify(std::span<const int32_t> ids);
  void Keep(int64_t count);

  int64_t WeightBytes() const;
  int64_t CacheBytes() const { return cache_.NumBytes(); }

 private:
  Ctx Context() { return {saved_, scratch_, compute_}; }

  Checkpoint checkpoint_;
  DecoderParams params_;
  Decoder decoder_;
  DType compute_;
  KvCache cache_;
  Arena saved_, scratch_;
  Tensor logits_;  // [1,V] F32
  std::optional<Drafter> drafter_;
  Tensor hidden_, verified_;     // of Verify: [M,D] F32 the residual stream, [M,V] F32
  std::vector<int32_t> unkept_;  // its tokens
};

}  // namespace fathom
