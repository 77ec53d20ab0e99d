// What the computations of golden arrays share: arrays from values, batches from the folder's ids.
#pragma once

#include <span>
#include <vector>

#include "fathom/data/batch.h"
#include "fathom/eval/golden.h"
#include "fathom/tensor/tensor.h"
#include "fathom/train/options.h"

namespace fathom {

// A copy of v under another shape.
Tensor CopyOf(ConstView v, Shape shape);
Tensor ScalarOf(double x);
Tensor VectorOf(std::span<const double> x);
// The values of an F64, F32, I64 or U8 array. Throws Error(kInput) for another dtype.
std::vector<double> Doubles(const Tensor& t);

// `rows` sequences of `length` tokens each, every one a document.
Batch MakeBatch(std::span<const int32_t> ids, std::span<const int32_t> targets, int64_t rows, int64_t length);
// From rows of T+1 ids: inputs [:, :-1], targets [:, 1:].
Batch ShiftedBatch(std::span<const int32_t> ids, int64_t rows);
// Options of a training session for batches of this shape; MaxText's optimizer as the goldens use it.
TrainOptions OptionsFor(const GoldenCase& golden, const Batch& batch, DType compute);
// Logits [T,V] of every token of a batch.
Tensor BatchLogits(const GoldenCase& golden, DType compute, const Batch& batch, const IndexerTraining& how, const LayerObserver& observer);

// The parts of a computation that have a file of their own; each adds what the folder asks for.
// The indexers' losses and gradients, and the steps of the stages that train them (golden_sparse.cc).
void AddSparseTraining(const GoldenCase& golden, DType compute, GoldenArrays& got);
// Logits, loss and gradients of MTP module 1 with the hub's own copies of embedding and head on the batch of "mid_ids" (golden_mtp.cc).
void AddMtp(const GoldenCase& golden, DType compute, const Batch& mid, GoldenArrays& got);
// Logits [T,V] of MTP module 1 on that batch, if it is fed so.
Tensor MtpLogitsOf(const GoldenCase& golden, DType compute, const Batch& mid, MtpInput input);

}  // namespace fathom
