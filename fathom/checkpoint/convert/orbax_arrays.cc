#include "fathom/checkpoint/convert/orbax_arrays.h"

#include <algorithm>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/kernels/elementwise/transpose.h"
#include "fathom/spec/model_spec.h"

namespace fathom {
namespace {

// The smallest number of equal parts of n that is at least `least`.
int64_t PartsOf(int64_t n, int64_t least) {
  for (int64_t parts = std::max<int64_t>(1, least); parts < n; ++parts) {
    if (n % parts == 0) return parts;
  }
  return n;
}

// Layers that differ in dtype meet in F32, which holds all of them exactly. Zeros have any dtype.
DType CommonDType(const std::vector<TensorTask>& tasks) {
  std::optional<DType> common;
  for (const TensorTask& task : tasks) {
    if (task.from == nullptr) continue;
    if (common && *common != task.info.dtype) return DType::kF32;
    common = task.info.dtype;
  }
  return common.value_or(DType::kF32);
}

// Small arrays whole; else one layer and expert, cut further along the rows of the hub's matrix, so that a chunk is rows of one tensor.
Shape ChunkShape(const MaxTextArray& layout, const ZarrArray& zarr, const OrbaxArrayOptions& options) {
  Shape chunk = zarr.shape;
  if (chunk.NumElements() * DTypeSize(zarr.dtype) <= options.whole_array_bytes) return chunk;
  if (layout.expert_axis >= 0) chunk[layout.expert_axis] = 1;
  if (layout.layer_axis >= 0) chunk[layout.layer_axis] = 1;
  const int64_t bytes = chunk.NumElements() * DTypeSize(zarr.dtype);
  const int axis = layout.RowAxis();
  if (axis >= 0) chunk[axis] /= PartsOf(chunk[axis], (bytes + options.max_chunk_bytes - 1) / options.max_chunk_bytes);
  return chunk;
}

int64_t Stride(const Shape& shape, int axis) {
  int64_t stride = 1;
  for (int a = axis + 1; a < shape.rank(); ++a) stride *= shape[a];
  return axis < 0 ? 0 : stride;
}

// Puts rows of the hub's matrix where expert e and layer l of the chunk lie.
void Place(const OrbaxArray& array, int64_t e, int64_t l, int64_t rows, std::span<const std::byte> slab, std::span<std::byte> chunk) {
  const MaxTextArray& layout = array.layout;
  const Shape& extent = array.zarr.chunk;
  const int64_t width = DTypeSize(array.zarr.dtype);
  const int64_t base = e * Stride(extent, layout.expert_axis) + l * Stride(extent, layout.layer_axis);
  std::byte* to = chunk.data() + base * width;
  if (!layout.transposed) {
    std::memcpy(to, slab.data(), slab.size());
    return;
  }
  const ConstView x(slab.data(), array.zarr.dtype, {rows, layout.Columns()});
  const int64_t step = Stride(extent, layout.ColumnAxis()), inner = layout.Columns() / layout.columns[0];
  if (inner == 1) return Transpose(x, View(to, array.zarr.dtype, {layout.Columns(), rows}, step));
  // Columns of two axes: the layer axis may stand between them.
  for (int64_t c = 0; c < layout.columns[0]; ++c) {
    Transpose(x.Cols(c * inner, (c + 1) * inner), View(to + c * step * width, array.zarr.dtype, {inner, rows}));
  }
}

}  // namespace

TaskTable::TaskTable(const ConvertSource& source, const DTypeOptions& dtype, const ModelConfig& config, bool zeros)
    : source_(source), zeros_(zeros), tasks_(PlanTensors(source, dtype)) {
  for (size_t t = 0; t < tasks_.size(); ++t) by_name_[tasks_[t].info.name] = t;
  for (const ParamSpec& param : ModelSpec(config)) shapes_[param.name] = param.shape;
}

TensorTask TaskTable::Get(const std::string& name) const {
  const Shape& expected = shapes_.at(name);
  const auto found = by_name_.find(name);
  if (found == by_name_.end() && zeros_) return {.info = {name, DType::kF32, expected}};
  if (found == by_name_.end())
    Throw(ErrorCode::kInput, "{}: tensor {} is missing; the model's config implies it", source_.companions().string(), name);
  const TensorTask& task = tasks_[found->second];
  if (task.info.shape != expected) {
    Throw(ErrorCode::kInput, "{} has shape {}, the model's config says {}", source_.Where(task.source), task.info.shape.ToString(),
          expected.ToString());
  }
  return task;
}

OrbaxArray PlanOrbaxArray(const MaxTextArray& layout, const std::string& prefix, const TaskTable& table, const OrbaxArrayOptions& options) {
  OrbaxArray array = {prefix + layout.name, layout, {}, {}};
  for (const std::string& name : layout.tensors) array.tasks.push_back(table.Get(name));
  array.zarr = PlainZarr(options.zarr3, CommonDType(array.tasks), layout.shape());
  for (TensorTask& task : array.tasks) task.info.dtype = array.zarr.dtype;
  array.zarr.sharded = options.zarr3;
  array.zarr.zstd = true;
  array.zarr.zstd_level = options.zstd_level;
  array.zarr.chunk = array.zarr.inner = ChunkShape(layout, array.zarr, options);
  return array;
}

void ChunkReader::ReadRows(const TensorTask& task, int64_t row, int64_t rows) {
  const int64_t columns = ColumnsOf(task.info.shape);
  slab_.resize(static_cast<size_t>(rows * columns * DTypeSize(task.info.dtype)));
  if (task.from != nullptr) return converter_.Read(task, row * columns, rows * columns, slab_);
  std::ranges::fill(slab_, std::byte{0});
}

std::span<const std::byte> ChunkReader::Read(const OrbaxArray& array, const Shape& index) {
  const MaxTextArray& layout = array.layout;
  const Shape& extent = array.zarr.chunk;
  chunk_.resize(static_cast<size_t>(array.zarr.ChunkBytes()));
  const auto begin = [&](int axis) { return axis < 0 ? 0 : index[axis] * extent[axis]; };
  const auto count = [&](int axis) { return axis < 0 ? int64_t{1} : extent[axis]; };
  const bool matrix = !layout.rows.empty();
  const int64_t rows = matrix ? count(layout.RowAxis()) * layout.RowUnit() : 1,
                row = matrix ? begin(layout.RowAxis()) * layout.RowUnit() : 0;
  for (int64_t e = 0; e < count(layout.expert_axis); ++e) {
    for (int64_t l = 0; l < count(layout.layer_axis); ++l) {
      const int64_t t = (begin(layout.expert_axis) + e) * layout.layers + begin(layout.layer_axis) + l;
      ReadRows(array.tasks[static_cast<size_t>(t)], row, rows);
      Place(array, e, l, rows, slab_, chunk_);
    }
  }
  return chunk_;
}

}  // namespace fathom
