#include <algorithm>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/log.h"
#include "fathom/base/rng.h"
#include "fathom/checkpoint/convert_output.h"
#include "fathom/checkpoint/ocdbt.h"
#include "fathom/checkpoint/save.h"
#include "fathom/kernels/transpose.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char* kParams = "params.params.";
constexpr int64_t kStepOfConverters = 0;

// An array of the output, the tasks behind its hub tensors, and its chunks.
struct OutputArray {
  MaxTextArray layout;
  ZarrArray zarr;
  std::string name;
  std::vector<TensorTask> tasks;  // tasks[expert * layers + layer]
};

struct ChunkRef {
  size_t array;
  Shape index;
};

struct Unit {
  std::string file;  // relative to items
  std::vector<ChunkRef> chunks;
};

// 32 hex digits that depend on the work alone.
std::string HexName(const std::string& identity, const std::string& what) {
  const std::string text = what + "\n" + identity;
  return fmt::format("{:016x}{:016x}", HashName(text), HashName("again\n" + text));
}

// The smallest divisor of n that leaves parts of at most n / least... elements: number of equal parts >= least.
int64_t PartsOf(int64_t n, int64_t least) {
  for (int64_t parts = std::max<int64_t>(1, least); parts < n; ++parts) {
    if (n % parts == 0) return parts;
  }
  return n;
}

Shape GridOf(const ZarrArray& zarr) {
  Shape grid = zarr.shape;
  for (int a = 0; a < grid.rank(); ++a) grid[a] = zarr.GridSize(a);
  return grid;
}

Shape IndexOf(int64_t i, const Shape& grid) {
  Shape index = grid;
  for (int a = grid.rank() - 1; a >= 0; --a) {
    index[a] = i % grid[a];
    i /= grid[a];
  }
  return index;
}

class OrbaxOutput : public ConvertOutput {
 public:
  OrbaxOutput(const ConvertSource& source, const OrbaxOutputOptions& options)
      : source_(source),
        options_(options),
        config_(source.config()),
        runner_(static_cast<int>(options.memory / (6 * options.max_chunk_bytes))) {
    options_.dtype.expand_fp8 = true;
    tasks_ = PlanTensors(source_, options_.dtype);
    for (size_t t = 0; t < tasks_.size(); ++t) by_name_[tasks_[t].info.name] = t;
    DropAbsentMtp();
    shapes_ = ShapesOf(config_);
    for (const MaxTextArray& layout : MaxTextArrays(config_, options_.scan_layers)) AddArray(layout);
    CompareSharedCopies();
    PlanUnits();
    for (int w = 0; w < runner_.workers(); ++w) workers_.push_back(std::make_unique<Worker>(source_));
  }

  Json WriteUnit(size_t u, const fs::path& folder, const ConvertProgress& done) override {
    return options_.ocdbt ? WriteDataFile(plan_[u], folder, done) : WriteArrayFolders(plan_[u], folder, done);
  }

  bool StillThere(size_t u, const fs::path& folder, const Json& record) const override {
    if (!record.is_object() || !record.contains("bytes")) return false;
    if (!options_.ocdbt) return fs::is_directory(fs::symlink_status(folder / "items" / plan_[u].file));
    const fs::path path = folder / "items" / plan_[u].file;
    return fs::is_regular_file(fs::symlink_status(path)) && record["bytes"] == fs::file_size(path);
  }

  void Finish(const fs::path& folder, const std::map<std::string, Json>& records) override {
    const fs::path items = folder / "items";
    std::vector<OrbaxLeaf> leaves = {{"step", "scalar"}};
    for (const OutputArray& array : arrays_) leaves.push_back({array.name});
    if (options_.ocdbt) WriteTree(items, records);
    if (!options_.ocdbt) WriteStepFolder(items);
    WriteFileAtomically(items / "_METADATA", FormatOrbaxMetadata(leaves, options_.ocdbt, options_.zarr3));
    const Json custom = {{"scan_layers", options_.scan_layers}, {"hub_shared_copies", has_shared_copies_}};
    WriteFileAtomically(folder / "_CHECKPOINT_METADATA", FormatCheckpointMetadata(options_.time, custom));
    if (!source_.companions().empty()) CopyCompanions(source_.companions(), folder);
    WriteFileAtomically(folder / "config.json", ConvertedConfig(source_, tasks_, options_.dtype).dump(2) + "\n");
  }

 private:
  struct Worker {
    explicit Worker(const ConvertSource& source) : rows(source) {}
    RowConverter rows;
    ZarrEncoder encoder;
    std::vector<std::byte> chunk, slab;
  };

  [[noreturn]] void Missing(const std::string& name) const {
    Throw(ErrorCode::kInput, "{}: tensor {} is missing; the model's config implies it", source_.companions().string(), name);
  }

  static std::unordered_map<std::string, Shape> ShapesOf(const ModelConfig& config) {
    std::unordered_map<std::string, Shape> shapes;
    for (const ExpectedTensor& tensor : ExpectedTensors(config)) shapes[tensor.name] = tensor.shape;
    return shapes;
  }

  // A checkpoint may leave out all of its MTP modules.
  void DropAbsentMtp() {
    const auto expected = ExpectedTensors(config_);
    const bool any = std::ranges::any_of(expected, [&](const ExpectedTensor& t) { return t.is_mtp && by_name_.contains(t.name); });
    if (any || config_.num_nextn_predict_layers == 0) return;
    spdlog::warn("{}: no tensor of the {} MTP modules that config.json names; converted without them", source_.companions().string(),
                 config_.num_nextn_predict_layers);
    config_.num_nextn_predict_layers = 0;
  }

  TensorTask TaskOf(const std::string& name) const {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) Missing(name);
    const TensorTask& task = tasks_[found->second];
    const Shape& expected = shapes_.at(name);
    if (task.info.shape != expected) {
      Throw(ErrorCode::kInput, "{} has shape {}, the model's config says {}", source_.Where(task.source), task.info.shape.ToString(),
            expected.ToString());
    }
    return task;
  }

  // Layers that differ in dtype meet in F32, which holds all of them exactly.
  static DType CommonDType(const std::vector<TensorTask>& tasks) {
    const DType first = tasks[0].info.dtype;
    return std::ranges::all_of(tasks, [&](const TensorTask& t) { return t.info.dtype == first; }) ? first : DType::kF32;
  }

  void AddArray(const MaxTextArray& layout) {
    OutputArray array;
    array.layout = layout;
    array.name = kParams + layout.name;
    for (const std::string& name : layout.tensors) array.tasks.push_back(TaskOf(name));
    array.zarr.version = options_.zarr3 ? 3 : 2;
    array.zarr.separator = options_.zarr3 ? "/" : ".";
    array.zarr.sharded = options_.zarr3;
    array.zarr.zstd = true;
    array.zarr.zstd_level = 1;
    array.zarr.dtype = CommonDType(array.tasks);
    for (TensorTask& task : array.tasks) task.info.dtype = array.zarr.dtype;
    array.zarr.shape = layout.shape();
    array.zarr.chunk = array.zarr.inner = ChunkShape(layout, array.zarr);
    arrays_.push_back(std::move(array));
  }

  // Small arrays whole; else one layer and expert, cut further along the rows of the hub's matrix, so that a chunk is rows of one tensor.
  Shape ChunkShape(const MaxTextArray& layout, const ZarrArray& zarr) const {
    Shape chunk = zarr.shape;
    if (chunk.NumElements() * DTypeSize(zarr.dtype) <= options_.whole_array_bytes) return chunk;
    if (layout.expert_axis >= 0) chunk[layout.expert_axis] = 1;
    if (layout.layer_axis >= 0) chunk[layout.layer_axis] = 1;
    const int64_t bytes = chunk.NumElements() * DTypeSize(zarr.dtype);
    const int axis = layout.RowAxis();
    if (axis >= 0) chunk[axis] /= PartsOf(chunk[axis], (bytes + options_.max_chunk_bytes - 1) / options_.max_chunk_bytes);
    return chunk;
  }

  // The hub's copies of embedding and head in an MTP module have no place in MaxText's tree: they are made again on the way back.
  void CompareSharedCopies() {
    for (const ExpectedTensor& tensor : ExpectedTensors(config_)) {
      if (!tensor.shared_copy) continue;
      const auto copy = source_.Find(tensor.name);
      has_shared_copies_ = has_shared_copies_ && copy.has_value();
      if (copy && !SameContent(*copy, *source_.Find(tensor.name.ends_with("embed_tokens.weight") ? "model.embed_tokens.weight"
                                                                                                 : "lm_head.weight"))) {
        spdlog::warn("{}: {} differs from the main model's; MaxText shares the two, so the copy is lost", source_.companions().string(),
                     tensor.name);
      }
    }
  }

  bool SameContent(size_t a, size_t b) const {
    const SourceTensor &x = source_.tensor(a), &y = source_.tensor(b);
    if (x.dtype != y.dtype || x.shape != y.shape) return false;
    const int64_t step = std::max<int64_t>(1, (4 << 20) / std::max<int64_t>(1, x.RowBytes()));
    std::vector<std::byte> one, two;
    for (int64_t row = 0; row < x.Rows(); row += step) {
      const int64_t rows = std::min(step, x.Rows() - row);
      one.resize(static_cast<size_t>(rows * x.RowBytes()));
      two.resize(one.size());
      source_.ReadRows(a, row, rows, one);
      source_.ReadRows(b, row, rows, two);
      if (one != two) return false;
    }
    return true;
  }

  void PlanUnits() {
    int64_t bytes = 0;
    for (size_t a = 0; a < arrays_.size(); ++a) {
      const ZarrArray& zarr = arrays_[a].zarr;
      const Shape grid = GridOf(zarr);
      if (!options_.ocdbt) plan_.push_back({arrays_[a].name, {}});
      for (int64_t i = 0; i < grid.NumElements(); ++i) {
        const bool full = options_.ocdbt && (plan_.empty() || bytes + zarr.ChunkBytes() > options_.target_file_size);
        if (full) {
          plan_.push_back({"d/" + HexName(options_.identity, std::to_string(plan_.size())), {}});
          bytes = 0;
        }
        plan_.back().chunks.push_back({a, IndexOf(i, grid)});
        bytes += zarr.ChunkBytes();
      }
    }
    for (const Unit& unit : plan_) {
      int64_t total = 0;
      for (const ChunkRef& chunk : unit.chunks) total += arrays_[chunk.array].zarr.ChunkBytes();
      units_.push_back({unit.file, total});
    }
  }

  // The chunk's elements, in worker.chunk.
  std::span<const std::byte> FillChunk(const ChunkRef& ref, Worker& worker) const {
    const OutputArray& array = arrays_[ref.array];
    const MaxTextArray& layout = array.layout;
    const Shape& extent = array.zarr.chunk;
    worker.chunk.resize(static_cast<size_t>(array.zarr.ChunkBytes()));
    const auto begin = [&](int axis) { return axis < 0 ? 0 : ref.index[axis] * extent[axis]; };
    const auto count = [&](int axis) { return axis < 0 ? int64_t{1} : extent[axis]; };
    const int64_t rows = layout.rows.empty() ? 1 : count(layout.RowAxis()) * layout.RowUnit(),
                  row = layout.rows.empty() ? 0 : begin(layout.RowAxis()) * layout.RowUnit();
    for (int64_t e = 0; e < count(layout.expert_axis); ++e) {
      for (int64_t l = 0; l < count(layout.layer_axis); ++l) {
        const TensorTask& task =
            array.tasks[static_cast<size_t>((begin(layout.expert_axis) + e) * layout.layers + begin(layout.layer_axis) + l)];
        worker.slab.resize(static_cast<size_t>(rows * task.RowBytes()));
        worker.rows.Read(task, row, rows, worker.slab);
        Place(array, e, l, rows, worker);
      }
    }
    return worker.chunk;
  }

  static int64_t Stride(const Shape& shape, int axis) {
    int64_t stride = 1;
    for (int a = axis + 1; a < shape.rank(); ++a) stride *= shape[a];
    return axis < 0 ? 0 : stride;
  }

  // Puts the hub's rows in worker.slab where expert e and layer l of the chunk lie.
  static void Place(const OutputArray& array, int64_t e, int64_t l, int64_t rows, Worker& worker) {
    const MaxTextArray& layout = array.layout;
    const Shape& extent = array.zarr.chunk;
    const int64_t width = DTypeSize(array.zarr.dtype);
    const int64_t base = e * Stride(extent, layout.expert_axis) + l * Stride(extent, layout.layer_axis);
    std::byte* to = worker.chunk.data() + base * width;
    if (!layout.transposed) {
      std::memcpy(to, worker.slab.data(), worker.slab.size());
      return;
    }
    const ConstView x(worker.slab.data(), array.zarr.dtype, {rows, layout.Columns()});
    const int64_t step = Stride(extent, layout.ColumnAxis()), inner = layout.Columns() / layout.columns[0];
    if (inner == 1) return Transpose(x, View(to, array.zarr.dtype, {layout.Columns(), rows}, step));
    // Columns of two axes: the layer axis may stand between them.
    for (int64_t c = 0; c < layout.columns[0]; ++c) {
      Transpose(x.Cols(c * inner, (c + 1) * inner), View(to + c * step * width, array.zarr.dtype, {inner, rows}));
    }
  }

  Json WriteDataFile(const Unit& unit, const fs::path& folder, const ConvertProgress& done) {
    const fs::path path = folder / "items" / unit.file;
    fs::create_directories(path.parent_path());
    fs::remove(path);
    OutputFile file(path);
    Json chunks = Json::array();
    uint64_t end = 0;
    runner_.Run(std::ssize(unit.chunks), [&](int64_t i, int w) {
      const ChunkRef& ref = unit.chunks[static_cast<size_t>(i)];
      Worker& worker = *workers_[static_cast<size_t>(w)];
      const auto bytes = worker.encoder.Encode(arrays_[ref.array].zarr, FillChunk(ref, worker));
      uint64_t offset = 0;
      const bool good = runner_.InOrder(i, [&] {
        offset = end;
        end += bytes.size();
        chunks.push_back({KeyOf(ref), offset, bytes.size()});
      });
      if (!good) return;
      file.WriteAt(offset, bytes);
      file.StartWriteback(offset, bytes.size());
      done(arrays_[ref.array].zarr.ChunkBytes());
    });
    file.Close();
    return {{"bytes", end}, {"chunks", chunks}};
  }

  std::string KeyOf(const ChunkRef& ref) const { return arrays_[ref.array].name + "/" + arrays_[ref.array].zarr.ChunkKey(ref.index); }
  const char* MetadataFile() const { return options_.zarr3 ? kZarr3File : kZarr2File; }

  Json WriteArrayFolders(const Unit& unit, const fs::path& folder, const ConvertProgress& done) {
    const fs::path items = folder / "items";
    fs::remove_all(items / unit.file);
    fs::create_directories(items / unit.file);
    std::atomic<uint64_t> total = 0;
    runner_.Run(std::ssize(unit.chunks), [&](int64_t i, int w) {
      const ChunkRef& ref = unit.chunks[static_cast<size_t>(i)];
      Worker& worker = *workers_[static_cast<size_t>(w)];
      const auto bytes = worker.encoder.Encode(arrays_[ref.array].zarr, FillChunk(ref, worker));
      fs::create_directories((items / KeyOf(ref)).parent_path());
      OutputFile file(items / KeyOf(ref));
      file.Write(bytes);
      file.Close();
      total += bytes.size();
      done(arrays_[ref.array].zarr.ChunkBytes());
    });
    WriteFileAtomically(items / unit.file / MetadataFile(), FormatZarr(arrays_[unit.chunks[0].array].zarr));
    return {{"bytes", total.load()}};
  }

  ZarrArray StepArray() const {
    ZarrArray step;
    step.version = options_.zarr3 ? 3 : 2;
    step.dtype = DType::kI64;
    return step;
  }
  static std::string StepValue() { return {reinterpret_cast<const char*>(&kStepOfConverters), sizeof kStepOfConverters}; }

  void WriteStepFolder(const fs::path& items) const {
    const ZarrArray step = StepArray();
    fs::create_directories(items / "step");
    WriteFileAtomically(items / "step" / MetadataFile(), FormatZarr(step));
    WriteFileAtomically(items / "step" / step.ChunkKey({}), StepValue());
  }

  void WriteTree(const fs::path& items, const std::map<std::string, Json>& records) const {
    std::map<std::string, OcdbtItem> tree;
    tree[std::string("step/") + MetadataFile()] = {true, FormatZarr(StepArray())};
    tree["step/" + StepArray().ChunkKey({})] = {true, StepValue()};
    for (const OutputArray& array : arrays_) tree[array.name + "/" + MetadataFile()] = {true, FormatZarr(array.zarr)};
    for (const Unit& unit : plan_) {
      for (const Json& chunk : records.at(unit.file).at("chunks")) {
        tree[chunk.at(0).get<std::string>()] = {false, "", unit.file, chunk.at(1).get<uint64_t>(), chunk.at(2).get<uint64_t>()};
      }
    }
    OcdbtWriteOptions write;
    const std::string uuid = HexName(options_.identity, "uuid");
    for (size_t i = 0; i < 16; ++i) write.config.uuid[i] = static_cast<std::byte>(std::stoi(uuid.substr(2 * i, 2), nullptr, 16));
    write.config.zstd = true;
    write.commit_time = options_.time;
    write.tree_file = "d/" + HexName(options_.identity, "tree");
    WriteOcdbtTree(items, tree, write);
  }

  const ConvertSource& source_;
  OrbaxOutputOptions options_;
  ModelConfig config_;
  std::vector<TensorTask> tasks_;
  std::unordered_map<std::string, size_t> by_name_;
  std::unordered_map<std::string, Shape> shapes_;
  std::vector<OutputArray> arrays_;
  std::vector<Unit> plan_;
  bool has_shared_copies_ = true;
  JobRunner runner_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace

std::unique_ptr<ConvertOutput> MakeOrbaxOutput(const ConvertSource& source, const OrbaxOutputOptions& options) {
  return std::make_unique<OrbaxOutput>(source, options);
}

}  // namespace fathom
