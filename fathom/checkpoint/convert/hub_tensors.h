// The checkpoint that the hub has of a model, without its files: for planning what doesn't lie here.
#pragma once

#include <memory>
#include <vector>

#include "fathom/checkpoint/convert/convert_source.h"
#include "fathom/checkpoint/safetensors/safetensors.h"
#include "fathom/config/model_config.h"
#include "fathom/config/run_config.h"
#include "fathom/spec/model_spec.h"

namespace fathom {

// The tensors of a checkpoint that does lie here.
std::vector<TensorInfo> StoredTensors(const TensorFolder& folder);

// As DeepSeek publishes V3 and later: matrices of products in FP8 with F32 scales. V2's are BF16 throughout.
bool IsFp8OnHub(const ModelConfig& config);

// The model of the flags as the hub has it: from V3 on with one MTP module, which the model files leave out, unless the flags say
// otherwise.
ModelConfig HubModel(const RunConfig& config);

// What the hub stores a parameter as: matrices in block FP8 or BF16, router biases and the indexer's k_norm F32, the rest BF16.
DType HubDType(const ParamSpec& param, bool fp8);

// Every tensor, scales included, in the order of the model.
std::vector<TensorInfo> HubTensors(const ModelConfig& config, bool fp8);

// The same as the input of a conversion that is only planned, in shards of 5 GB. It has no data.
std::unique_ptr<ConvertSource> MakeHubSource(const ModelConfig& config, bool fp8);

}  // namespace fathom
