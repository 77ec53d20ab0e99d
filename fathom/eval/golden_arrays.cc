#include "fathom/eval/golden_arrays.h"

#include <cstring>

#include "fathom/eval/forward.h"

namespace fathom {

Tensor CopyOf(ConstView v, Shape shape) {
  Tensor t(v.dtype(), shape);
  std::memcpy(t.mutable_view().raw(), v.raw(), static_cast<size_t>(v.NumBytes()));
  return t;
}

Tensor ScalarOf(double x) {
  Tensor t(DType::kF64, {});
  *t.mutable_data<double>() = x;
  return t;
}

Tensor VectorOf(std::span<const double> x) {
  Tensor t(DType::kF64, {std::ssize(x)});
  std::copy(x.begin(), x.end(), t.mutable_data<double>());
  return t;
}

std::vector<double> Doubles(const Tensor& t) {
  std::vector<double> x(static_cast<size_t>(t.NumElements()));
  for (size_t i = 0; i < x.size(); ++i) {
    switch (t.dtype()) {
      case DType::kF64:
        x[i] = t.data<double>()[i];
        break;
      case DType::kF32:
        x[i] = t.data<float>()[i];
        break;
      case DType::kI64:
        x[i] = static_cast<double>(t.data<int64_t>()[i]);
        break;
      case DType::kU8:
        x[i] = t.data<uint8_t>()[i];
        break;
      default:
        Throw(ErrorCode::kInput, "golden arrays are F64, F32, I64 or U8, found {}", DTypeName(t.dtype()));
    }
  }
  return x;
}

Batch MakeBatch(std::span<const int32_t> ids, std::span<const int32_t> targets, int64_t rows, int64_t length) {
  Batch batch;
  batch.Clear(rows, length);
  for (int64_t r = 0; r < rows; ++r) batch.AddSegment(r * length, length, ids.data() + r * length, targets.data() + r * length, 1);
  batch.target_count = rows * length;
  return batch;
}

Batch ShiftedBatch(std::span<const int32_t> ids, int64_t rows) {
  const int64_t length = std::ssize(ids) / rows - 1;
  std::vector<int32_t> inputs, targets;
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = ids.begin() + r * (length + 1);
    inputs.insert(inputs.end(), row, row + length);
    targets.insert(targets.end(), row + 1, row + length + 1);
  }
  return MakeBatch(inputs, targets, rows, length);
}

TrainOptions OptionsFor(const GoldenCase& golden, const Batch& batch, DType compute) {
  TrainOptions o;
  o.rows = batch.rows;
  o.length = batch.length;
  o.compute = compute;
  o.layers = golden.layers;
  return o;
}

Tensor BatchLogits(const GoldenCase& golden, DType compute, const Batch& batch, const IndexerTraining& how, const LayerObserver& observer) {
  std::vector<Segment> segments;
  for (const TokenRange& s : batch.segments) segments.push_back({s.begin, s.end, s.begin, s.end});
  return ForwardModel(golden.checkpoint, compute, golden.layers)
      .Logits(batch.ids, {batch.positions, segments, batch.length, how.dense_attention}, observer);
}

}  // namespace fathom
