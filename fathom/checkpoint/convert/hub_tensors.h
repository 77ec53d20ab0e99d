// The checkpoint that the hub has of a model, without its files: for planning what doesn't lie here.
#pragma once

#include <memory>
#include <vector>

#include "fathom/checkpoint/convert/convert_source.h"
#include "fathom/checkpoint/safetensors/safetensors.h"
#include "fathom/config/model_config.h"

namespace fathom {

// The tensors of a checkpoint that does lie here.
std::vector<TensorInfo> StoredTensors(const TensorFolder& folder);

// As DeepSeek publishes V3 and later: matrices of products in FP8 with F32 scales. V2's are BF16 throughout.
bool IsFp8OnHub(const ModelConfig& config);

// Every tensor, scales included, in the order of the model: matrices in block FP8 or BF16, router biases and the indexer's k_norm F32, the
// rest BF16.
std::vector<TensorInfo> HubTensors(const ModelConfig& config, bool fp8);

// The same as the input of a conversion that is only planned, in shards of 5 GB. It has no data.
std::unique_ptr<ConvertSource> MakeHubSource(const ModelConfig& config, bool fp8);

}  // namespace fathom
