// The whole-number fields of config.json: one table for reading, checking and writing.
#pragma once

#include <span>

#include "fathom/config/model_config.h"

namespace fathom {

enum class SizeKind {
  kAlways,   // every model states it
  kMoe,      // a model with experts states it
  kIndexer,  // DeepSeek-V3.2 states it
  kOptional  // absent or null: the default in ModelConfig
};

inline constexpr int64_t kMostExperts = 4096;  // n_routed_experts: what the kernels can route and multiply at once

struct ModelSize {
  const char* name;
  int64_t ModelConfig::*field;
  SizeKind kind;
  int64_t low, high;  // allowed when stated; the bounds keep products of sizes far from overflow
};

std::span<const ModelSize> ModelSizes();

}  // namespace fathom
