// Parameters from a checkpoint, or fresh ones.
#pragma once

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/model/params.h"
#include "fathom/model/sharding.h"

namespace fathom {

// As stored: mapped, read where they lie; what no kernel computes with (F16, router biases that are not F32) is copied to F32. For
// inference and checks. Throws Error(kInput) as Checkpoint::Get does.
DecoderParams MapParams(const Checkpoint& checkpoint, RegionOf region = {});

// For training. What copied(param) names is in memory of its own in `dtype` (F32 or BF16; router biases always F32), FP8 dequantised, and
// the pages of the file are given back as it goes; the rest is mapped as above. config: the checkpoint's, or one of the same model with
// parts that the checkpoint lacks, whose slots stay empty. region: what is wanted of each; no rows: its slot stays empty, too. Throws
// Error(kUsage) for a part of a mapped FP8 matrix that cuts its blocks of scales.
DecoderParams LoadParams(const Checkpoint& checkpoint, const ModelConfig& config, DType dtype, ParamFilter copied, RegionOf region = {});
// All of them copied.
DecoderParams CopyParams(const Checkpoint& checkpoint, DType dtype);

// As LoadParams maps all of the hub's checkpoint of this model, which need not lie here: under a PlanScope, addresses without memory.
DecoderParams MapHubParams(const ModelConfig& config, RegionOf region = {});

// Fresh weights from a seed: truncated normal with variance 1/fan_in for matrices (expert matrices too; MaxText 0.2.5 divides by another
// number there, which maxtext_expert_init reproduces), normal with variance 1 for the embedding, ones for norms, zeros for biases.
// Parts of them have the values that they have in the whole.
DecoderParams InitParams(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init, RegionOf region = {});

// The same for every empty slot that wanted(param) names.
void InitMissing(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init, ParamFilter wanted, DecoderParams& params,
                 RegionOf region = {});

// Bytes that these parts of the parameters, with their scales, have in the checkpoint.
int64_t StoredBytes(const Checkpoint& checkpoint, const ModelSpec& spec, RegionOf region);

}  // namespace fathom
