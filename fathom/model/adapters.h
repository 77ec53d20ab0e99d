// Low-rank adapters of a whole model: made, read, attached to the weights that they belong to.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "fathom/checkpoint/hub/peft.h"
#include "fathom/model/params.h"
#include "fathom/model/sharding.h"

namespace fathom {

struct NamedAdapter {
  const ParamSpec* spec;  // of the matrix that it stands beside
  LowRank* adapter;
};
// In the order of the spec.
std::vector<NamedAdapter> ListAdapters(DecoderParams& params);

// "model.layers.0.self_attn.o_proj.lora_A.weight".
std::string NameOf(const ParamSpec& param, Factor factor);
// Of the whole.
Shape ShapeOf(const ParamSpec& param, Factor factor, int64_t rank);

// Fresh ones beside these parameters, from a seed: A normal (truncated) with the variance that peft gives it, 1/(3K); B zero. Of those
// that the rank holds, its part.
void AttachFresh(const std::vector<const ParamSpec*>& modules, int64_t rank, double alpha, uint64_t seed, const Sharding& sharding,
                 DecoderParams& params);
// Those that were read for params.spec; likewise.
void Attach(PeftAdapter adapter, const Sharding& sharding, DecoderParams& params);
// Reads a PEFT folder for inference. Weights stay as they are mapped, but for kv_b_proj, which absorbed attention cuts into heads: it is
// merged in F32. Throws Error(kInput) as ReadPeftAdapter.
void AttachForInference(const std::filesystem::path& dir, const Sharding& sharding, DecoderParams& params);

}  // namespace fathom
