// Cosines and sines of YaRN RoPE (Peng et al., 2023; DeepSeek-V2 report, section 3.1.4), computed in double.
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/config/model_config.h"
#include "fathom/layers/options.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

// Frequencies [qk_rope_head_dim / 2], in radians per position. Without rope_scaling: rope_theta^(-2i/d).
std::vector<double> RopeFrequencies(const ModelConfig& config);

// Factor on cos and sin: mscale(mscale) / mscale(mscale_all_dim), 1 for every released model.
double RopeTableScale(const ModelConfig& config);

// Factor on attention scores: (Dn+Dr)^-0.5, times mscale(mscale_all_dim)^2 under YaRN.
double SoftmaxScale(const ModelConfig& config, const LayerFaults& faults = {});

struct RopeTable {
  Tensor cos, sin;  // [length, d/2] F32
  RopeTable(const ModelConfig& config, int64_t length, const LayerFaults& faults = {});
  int64_t length() const { return cos.dim(0); }
};

}  // namespace fathom
