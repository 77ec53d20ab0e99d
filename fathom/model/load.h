// Parameters from a checkpoint, or fresh ones.
#pragma once

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/model/params.h"

namespace fathom {

// As stored: mapped, read where they lie; what no kernel computes with (F16, router biases that are not F32) is copied to F32. For
// inference and checks. Throws Error(kInput) as Checkpoint::Get does.
DecoderParams MapParams(const Checkpoint& checkpoint);

// For training. What copied(param) names is in memory of its own in `dtype` (F32 or BF16; router biases always F32), FP8 dequantised, and
// the pages of the file are given back as it goes; the rest is mapped as above. config: the checkpoint's, or one of the same model with
// parts that the checkpoint lacks, whose slots stay empty.
DecoderParams LoadParams(const Checkpoint& checkpoint, const ModelConfig& config, DType dtype, ParamFilter copied);
// All of them copied.
DecoderParams CopyParams(const Checkpoint& checkpoint, DType dtype);

// Fresh weights from a seed: truncated normal with variance 1/fan_in for matrices (expert matrices too; MaxText 0.2.5 divides by another
// number there, which maxtext_expert_init reproduces), normal with variance 1 for the embedding, ones for norms, zeros for biases.
DecoderParams InitParams(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init);

// The same for every empty slot that wanted(param) names.
void InitMissing(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init, ParamFilter wanted,
                 DecoderParams& params);

}  // namespace fathom
