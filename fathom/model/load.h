// Parameters from a checkpoint, or fresh ones.
#pragma once

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/model/params.h"

namespace fathom {

// As stored: mapped, read where they lie; what no kernel computes with (F16, router biases that are not F32) is copied to F32. For
// inference and checks. Throws Error(kInput) as Checkpoint::Get does.
DecoderParams MapParams(const Checkpoint& checkpoint);

// Copied into memory of their own in `dtype` (F32 or BF16; router biases always F32), FP8 dequantised; for training. The pages of the
// file are given back as it goes. mtp_copies: also the MTP modules' copies of embedding and head; else those slots stay empty.
DecoderParams CopyParams(const Checkpoint& checkpoint, DType dtype, bool mtp_copies = true);

// Fresh weights from a seed: truncated normal with variance 1/fan_in for matrices (expert matrices too; MaxText 0.2.5 divides by another
// number there, which maxtext_expert_init reproduces), normal with variance 1 for the embedding, ones for norms, zeros for biases.
DecoderParams InitParams(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init);

// The same for every slot of an MTP module that is empty; sizes params.mtp.
void InitMissingMtp(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init, DecoderParams& params);

// The same for every empty slot of an indexer.
void InitMissingIndexers(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init, DecoderParams& params);

}  // namespace fathom
