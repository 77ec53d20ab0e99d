#include "fathom/checkpoint/convert/convert_tensors.h"

#include <algorithm>
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

  void Add(size_t i) {
    const SourceTensor& tensor = source_.tensor(i);
    TensorTask task = {&source_, i, {tensor.name, TargetOf(tensor), tensor.shape}};
    const bool from_fp8 = tensor.dtype == DType::kF8E4M3, to_fp8 = task.info.dtype == DType::kF8E4M3;
    task.quantize = to_fp8 && (!from_fp8 || Requantizes());
    const std::optional<size_t> scale = from_fp8 ? std::optional(ScaleOf(i)) : std::nullopt;
    if (!to_fp8 || task.quantize) task.scale = scale;
    const int64_t columns = std::max<int64_t>(1, ColumnsOf(tensor.shape));
    task.unit = std::lcm(tensor.unit, task.quantize ? kScaleBlock * columns : task.scale ? columns : 1);
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

void PieceConverter::Dequantize(const TensorTask& task, ConstView codes, int64_t first_row, View out) {
  const SourceTensor& scales = task.from->tensor(*task.scale);
  const int64_t columns = ColumnsOf(scales.shape), first = first_row / kScaleBlock,
                rows = (first_row + codes.dim(0) + kScaleBlock - 1) / kScaleBlock - first;
  const auto some = Scratch(scales_, rows * columns * DTypeSize(scales.dtype));
  task.from->Read(*task.scale, first * columns, rows * columns, some);
  const ConstView factors(some.data(), scales.dtype == DType::kU8 ? DType::kF8E8M0 : scales.dtype, {rows, columns});
  if (out.dtype() != DType::kF16) return DequantizeFp8(codes, factors, first_row % kScaleBlock, out);
  std::vector<float> wide(static_cast<size_t>(codes.NumElements()));
  DequantizeFp8(codes, factors, first_row % kScaleBlock, ViewOf(wide.data(), codes.shape()));
  Cast(ViewOf(std::as_const(wide).data(), codes.shape()), out);
}

void PieceConverter::ReadAs(const TensorTask& task, DType dtype, int64_t begin, int64_t count, std::span<std::byte> out) {
  const SourceTensor& tensor = task.Stored();
  if (tensor.dtype == dtype) return task.from->Read(task.source, begin, count, out);
  const auto stored = Scratch(stored_, count * DTypeSize(tensor.dtype));
  task.from->Read(task.source, begin, count, stored);
  const int64_t columns = task.scale ? ColumnsOf(tensor.shape) : count;
  const Shape shape = {count / columns, columns};
  const ConstView from(stored.data(), tensor.dtype, shape);
  const View to(out.data(), dtype, shape);
  task.scale ? Dequantize(task, from, begin / columns, to) : Cast(from, to);
}

void PieceConverter::Read(const TensorTask& task, int64_t begin, int64_t count, std::span<std::byte> out) {
  FATHOM_CHECK(!task.quantize && begin % task.unit == 0 && std::ssize(out) == count * DTypeSize(task.info.dtype), "{}", task.info.name);
  if (count > 0) ReadAs(task, task.info.dtype, begin, count, out);
}

int64_t PieceConverter::Quantize(const TensorTask& task, int64_t begin, int64_t count, ScaleFormat format, std::span<std::byte> codes,
                                 std::span<std::byte> scales) {
  const DType stored = task.Stored().dtype, dtype = stored == DType::kBF16 ? stored : DType::kF32;
  const int64_t columns = task.info.shape[1];
  const Shape shape = {count / columns, columns};
  const auto values = Scratch(values_, count * DTypeSize(dtype));
  ReadAs(task, dtype, begin, count, values);
  return QuantizeFp8(ConstView(values.data(), dtype, shape), format, View(codes.data(), DType::kF8E4M3, shape),
                     View(scales.data(), DType::kF32, ScaleShape(shape)));
}

}  // namespace fathom
