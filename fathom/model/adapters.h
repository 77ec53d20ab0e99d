// Low-rank adapters of a whole model: made, read, attached to the weights that they belong to.
#pragma once

#include <filesystem>
#include <vector>

#include "fathom/checkpoint/hub/peft.h"
#include "fathom/model/params.h"

namespace fathom {

struct NamedAdapter {
  const ParamSpec* spec;  // of the matrix that it stands beside
  LowRank* adapter;
};
// In the order of the spec.
std::vector<NamedAdapter> ListAdapters(DecoderParams& params);

// Fresh ones beside these parameters, from a seed: A normal (truncated) with the variance that peft gives it, 1/(3K); B zero.
void AttachFresh(const std::vector<const ParamSpec*>& modules, int64_t rank, double alpha, uint64_t seed, DecoderParams& params);
// Those that were read for params.spec.
void Attach(PeftAdapter adapter, DecoderParams& params);
// Reads a PEFT folder for inference. Weights stay as they are mapped, but for kv_b_proj, which absorbed attention cuts into heads: it is
// merged in F32. Throws Error(kInput) as ReadPeftAdapter.
void AttachForInference(const std::filesystem::path& dir, DecoderParams& params);

}  // namespace fathom
