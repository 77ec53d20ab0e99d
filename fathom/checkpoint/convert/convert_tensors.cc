#include "fathom/checkpoint/convert/convert_tensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "fathom/base/error.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/spec/param_role.h"

namespace fathom {
namespace {

// What no parameter of the family is called has no place on the hub.
bool StoredOnHub(const SourceTensor& tensor, HubStorage storage) {
  const auto role = RoleOf(tensor.name);
  return role && FactsOf(*role).storage == storage;
}

constexpr std::string_view kWeightSuffix = ".weight";

float ElementOf(ConstView v, int64_t row, int64_t column) {
  switch (v.dtype()) {
    case DType::kF32:
      return v.row<float>(row)[column];
    case DType::kBF16:
      return ToFloat(v.row<BF16>(row)[column]);
    case DType::kF16:
      return ToFloat(v.row<F16>(row)[column]);
    case DType::kF8E4M3:
      return ToFloat(v.row<F8E4M3>(row)[column]);
    default:
      return ToFloat(v.row<F8E8M0>(row)[column]);
  }
}

// To the nearest float of which a narrower float is made without rounding twice: where bits are lost, the last one is set.
float RoundToOdd(double x) {
  const auto nearest = static_cast<float>(x);
  if (static_cast<double>(nearest) == x || !std::isfinite(nearest)) return nearest;
  const bool away = std::abs(static_cast<double>(nearest)) > std::abs(x);
  return std::bit_cast<float>((std::bit_cast<uint32_t>(nearest) - (away ? 1u : 0u)) | 1u);
}

void StoreRounded(double x, const View& out, int64_t row, int64_t column) {
  if (out.dtype() == DType::kF32) {
    out.row<float>(row)[column] = static_cast<float>(x);
  } else if (out.dtype() == DType::kBF16) {
    out.row<BF16>(row)[column] = ToBF16(RoundToOdd(x));
  } else {
    out.row<F16>(row)[column] = FromFloat<F16>(RoundToOdd(x));
  }
}

bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16; }

class Planner {
 public:
  Planner(const ConvertSource& source, const DTypeOptions& options) : source_(source), options_(options), fp8_source_(source.has_fp8()) {}

  std::vector<TensorTask> Plan() {
    for (size_t i = 0; i < source_.tensors().size(); ++i) {
      if (IsScale(i)) continue;
      Add(i);
    }
    return std::move(tasks_);
  }

 private:
  [[noreturn]] void Fail(size_t i, const std::string& what) const { Throw(ErrorCode::kInput, "{} {}", source_.Where(i), what); }

  bool IsScale(size_t i) const {
    const std::string& name = source_.tensor(i).name;
    if (!name.ends_with(kScaleSuffix)) return false;
    const auto weight = source_.Find(name.substr(0, name.size() - kScaleSuffix.size()));
    if (!weight || source_.tensor(*weight).dtype != DType::kF8E4M3) Fail(i, "holds scales of no FP8 matrix");
    return true;
  }

  size_t ScaleOf(size_t i) const {
    const SourceTensor& weight = source_.tensor(i);
    const auto scale = source_.Find(weight.name + std::string(kScaleSuffix));
    if (!scale) Fail(i, "is FP8 and has no scales (_scale_inv)");
    const SourceTensor& found = source_.tensor(*scale);
    if (weight.shape.rank() != 2) Fail(i, fmt::format("is FP8 of shape {}; only matrices have block scales", weight.shape.ToString()));
    const bool dtype_good = found.dtype == DType::kF32 || found.dtype == DType::kF8E8M0 || found.dtype == DType::kU8;
    if (!dtype_good || found.shape != ScaleShape(weight.shape)) {
      Fail(*scale, fmt::format("is {} {}, expected are scales F32 or F8_E8M0 {}", DTypeName(found.dtype), found.shape.ToString(),
                               ScaleShape(weight.shape).ToString()));
    }
    return *scale;
  }

  DType TargetOf(const SourceTensor& tensor) const {
    if (tensor.dtype == DType::kF8E4M3) {
      switch (options_.target) {
        case TargetDType::kKeep:
          return options_.expand_fp8 ? DType::kBF16 : DType::kF8E4M3;
        case TargetDType::kF8:
          return DType::kF8E4M3;
        case TargetDType::kF32:
          return DType::kF32;
        case TargetDType::kF16:
          return DType::kF16;
        case TargetDType::kBF16:
          return DType::kBF16;
      }
    }
    if (!IsFloat(tensor.dtype) || options_.target == TargetDType::kKeep) return tensor.dtype;
    if (options_.target == TargetDType::kF32) return DType::kF32;
    if (options_.target == TargetDType::kF8 && StoredOnHub(tensor, HubStorage::kFp8)) return DType::kF8E4M3;
    if (StoredOnHub(tensor, HubStorage::kF32) || (fp8_source_ && options_.target != TargetDType::kF16)) return tensor.dtype;
    return options_.target == TargetDType::kF16 ? DType::kF16 : DType::kBF16;
  }

  // FP8 whose scales must become powers of two is made anew.
  bool Requantizes() const {
    return options_.target == TargetDType::kF8 && options_.scale_format == ScaleFormat::kUe8m0 &&
           source_.raw_config().value(Json::json_pointer("/quantization_config/scale_fmt"), "") != "ue8m0";
  }

  // The part of the adapter that stands beside the tensor.
  std::shared_ptr<const LowRank> AdapterOf(const SourceTensor& tensor) const {
    if (options_.adapter == nullptr || !tensor.name.ends_with(kWeightSuffix)) return nullptr;
    const auto found = options_.adapter->modules.find(tensor.name.substr(0, tensor.name.size() - kWeightSuffix.size()));
    return found == options_.adapter->modules.end() ? nullptr : std::shared_ptr<const LowRank>(options_.adapter, &found->second);
  }

  void Add(size_t i) {
    const SourceTensor& tensor = source_.tensor(i);
    TensorTask task = {&source_, i, {tensor.name, TargetOf(tensor), tensor.shape}};
    task.merge = AdapterOf(tensor);
    const bool from_fp8 = tensor.dtype == DType::kF8E4M3, to_fp8 = task.info.dtype == DType::kF8E4M3;
    if (task.merge && to_fp8 && options_.target == TargetDType::kKeep) {
      Throw(ErrorCode::kUsage,
            "{} is FP8: merging an adapter needs dtype=bfloat16 or float32, or dtype=float8 to quantise anew what changes",
            source_.Where(i));
    }
    task.quantize = to_fp8 && (!from_fp8 || task.merge || Requantizes());
    const std::optional<size_t> scale = from_fp8 ? std::optional(ScaleOf(i)) : std::nullopt;
    if (!to_fp8 || task.quantize) task.scale = scale;
    const int64_t columns = std::max<int64_t>(1, ColumnsOf(tensor.shape));
    task.unit = std::lcm(tensor.unit, task.quantize ? kScaleBlock * columns : task.scale || task.merge ? columns : 1);
    tasks_.push_back(task);
    if (to_fp8 && !task.quantize)
      tasks_.push_back({&source_, *scale, {source_.tensor(*scale).name, source_.tensor(*scale).dtype, source_.tensor(*scale).shape}});
  }

  const ConvertSource& source_;
  const DTypeOptions& options_;
  bool fp8_source_;
  std::vector<TensorTask> tasks_;
};

}  // namespace

std::span<std::byte> Scratch(std::vector<std::byte>& buffer, int64_t bytes) {
  if (std::ssize(buffer) < bytes) buffer.resize(static_cast<size_t>(bytes));
  return std::span(buffer).first(static_cast<size_t>(bytes));
}

std::vector<TensorTask> PlanTensors(const ConvertSource& source, const DTypeOptions& options) { return Planner(source, options).Plan(); }

ConstView PieceConverter::Scales(const TensorTask& task, int64_t first_row, int64_t rows) {
  const SourceTensor& scales = task.from->tensor(*task.scale);
  const int64_t columns = ColumnsOf(scales.shape), first = first_row / kScaleBlock,
                blocks = (first_row + rows + kScaleBlock - 1) / kScaleBlock - first;
  const auto some = Scratch(scales_, blocks * columns * DTypeSize(scales.dtype));
  task.from->Read(*task.scale, first * columns, blocks * columns, some);
  return {some.data(), scales.dtype == DType::kU8 ? DType::kF8E8M0 : scales.dtype, {blocks, columns}};
}

void PieceConverter::Merge(const TensorTask& task, ConstView stored, int64_t first_row, View out) {
  const ConstView scales = task.scale ? Scales(task, first_row, stored.dim(0)) : ConstView();
  const LowRank& adapter = *task.merge;
  const int64_t rank = adapter.a.dim(0);
  const auto* a = adapter.a.data<float>();
  std::vector<double> row(static_cast<size_t>(stored.dim(1)));
  for (int64_t i = 0; i < stored.dim(0); ++i) {
    std::ranges::fill(row, 0.0);
    const float* b = adapter.b.data<float>() + (first_row + i) * rank;
    for (int64_t r = 0; r < rank; ++r) {
      for (size_t j = 0; j < row.size(); ++j)
        row[j] += static_cast<double>(b[r]) * static_cast<double>(a[static_cast<size_t>(r) * row.size() + j]);
    }
    const int64_t block = (first_row + i) / kScaleBlock - first_row / kScaleBlock;
    for (int64_t j = 0; j < stored.dim(1); ++j) {
      const double base = static_cast<double>(ElementOf(stored, i, j)) *
                          (scales.empty() ? 1.0 : static_cast<double>(ElementOf(scales, block, j / kScaleBlock)));
      StoreRounded(base + adapter.factor * row[static_cast<size_t>(j)], out, i, j);
    }
  }
}

void PieceConverter::Dequantize(const TensorTask& task, ConstView codes, int64_t first_row, View out) {
  const ConstView factors = Scales(task, first_row, codes.dim(0));
  if (out.dtype() != DType::kF16) return DequantizeFp8(codes, factors, first_row % kScaleBlock, out);
  std::vector<float> wide(static_cast<size_t>(codes.NumElements()));
  DequantizeFp8(codes, factors, first_row % kScaleBlock, ViewOf(wide.data(), codes.shape()));
  Cast(ViewOf(std::as_const(wide).data(), codes.shape()), out);
}

void PieceConverter::ReadAs(const TensorTask& task, DType dtype, int64_t begin, int64_t count, std::span<std::byte> out) {
  const SourceTensor& tensor = task.Stored();
  if (tensor.dtype == dtype && !task.merge) return task.from->Read(task.source, begin, count, out);
  const auto stored = Scratch(stored_, count * DTypeSize(tensor.dtype));
  task.from->Read(task.source, begin, count, stored);
  const int64_t columns = task.scale || task.merge ? ColumnsOf(tensor.shape) : count;
  const Shape shape = {count / columns, columns};
  const ConstView from(stored.data(), tensor.dtype, shape);
  const View to(out.data(), dtype, shape);
  if (task.merge) return Merge(task, from, begin / columns, to);
  task.scale ? Dequantize(task, from, begin / columns, to) : Cast(from, to);
}

void PieceConverter::Read(const TensorTask& task, int64_t begin, int64_t count, std::span<std::byte> out) {
  FATHOM_CHECK(!task.quantize && begin % task.unit == 0 && std::ssize(out) == count * DTypeSize(task.info.dtype), "{}", task.info.name);
  if (count > 0) ReadAs(task, task.info.dtype, begin, count, out);
}

int64_t PieceConverter::Quantize(const TensorTask& task, int64_t begin, int64_t count, ScaleFormat format, std::span<std::byte> codes,
                                 std::span<std::byte> scales) {
  const DType stored = task.Stored().dtype, dtype = stored == DType::kBF16 && !task.merge ? stored : DType::kF32;
  const int64_t columns = task.info.shape[1];
  const Shape shape = {count / columns, columns};
  const auto values = Scratch(values_, count * DTypeSize(dtype));
  ReadAs(task, dtype, begin, count, values);
  return QuantizeFp8(ConstView(values.data(), dtype, shape), format, View(codes.data(), DType::kF8E4M3, shape),
                     View(scales.data(), DType::kF32, ScaleShape(shape)));
}

}  // namespace fathom
