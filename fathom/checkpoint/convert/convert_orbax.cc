#include <algorithm>
#include <atomic>
#include <numeric>

#include "fathom/base/error.h"
#include "fathom/base/log.h"
#include "fathom/base/rng.h"
#include "fathom/checkpoint/convert/convert_output.h"
#include "fathom/checkpoint/convert/orbax_arrays.h"
#include "fathom/checkpoint/convert/orbax_state.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/checkpoint/orbax/ocdbt.h"
#include "fathom/checkpoint/orbax/zarr.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char* kParams = "params.params.";

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

class OrbaxOutput : public ConvertOutput {
 public:
  OrbaxOutput(const ConvertSource& source, const OrbaxOutputOptions& options)
      : source_(source),
        options_(options),
        config_(source.config()),
        runner_(static_cast<int>(options.memory / (6 * options.arrays.max_chunk_bytes))) {
    options_.dtype.expand_fp8 = true;
    DropAbsentMtp();
    PlanArrays();
    CompareSharedCopies();
    PlanUnits();
    for (int w = 0; w < runner_.workers(); ++w) workers_.push_back(std::make_unique<Worker>());
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
    options_.ocdbt ? WriteTree(items, records) : WriteSmallFolders(items);
    std::vector<OrbaxLeaf> leaves = EmptyLeavesOf(source_.state());
    for (const SmallArray& array : small_) leaves.push_back(array.leaf);
    for (const OrbaxArray& array : arrays_) leaves.push_back({array.name});
    WriteFileAtomically(items / "_METADATA", FormatOrbaxMetadata(leaves, options_.ocdbt, options_.arrays.zarr3));
    Json custom = {{"scan_layers", options_.scan_layers}, {kSharedCopies, has_shared_copies_}};
    if (source_.state() != nullptr) custom[kTrainState] = source_.state()->OwnValues();
    WriteFileAtomically(folder / "_CHECKPOINT_METADATA", FormatCheckpointMetadata(options_.time, custom));
    if (!source_.companions().empty()) CopyCompanions(source_.companions(), folder);
    WriteFileAtomically(folder / "config.json", ConvertedConfig(source_, tasks_, options_.dtype).dump(2) + "\n");
  }

 private:
  struct Worker {
    ChunkReader chunks;
    ZarrEncoder encoder;
  };

  // A checkpoint may leave out all of its MTP modules.
  void DropAbsentMtp() {
    const bool any = std::ranges::any_of(ModelSpec(config_), [&](const ParamSpec& p) { return p.is_mtp() && source_.Find(p.name); });
    if (any || config_.num_nextn_predict_layers == 0) return;
    spdlog::warn("{}: no tensor of the {} MTP modules that config.json names; converted without them", source_.companions().string(),
                 config_.num_nextn_predict_layers);
    config_.num_nextn_predict_layers = 0;
  }

  // Parameters, then what a training state adds: the router biases once more where training keeps them, and the moments.
  void PlanArrays() {
    const auto layouts = MaxTextArrays(config_, options_.scan_layers);
    const TaskTable weights(source_, options_.dtype, config_, false);
    tasks_ = weights.tasks();
    for (const MaxTextArray& layout : layouts) arrays_.push_back(PlanOrbaxArray(layout, kParams, weights, options_.arrays));
    small_ = SmallArraysOf(source_.state(), config_, options_.scan_layers, options_.arrays.zarr3);
    if (source_.state() == nullptr || source_.state()->slots.empty()) return;
    for (const MaxTextArray& layout : layouts) {
      if (LearnsByCounting(layout.role)) arrays_.push_back(PlanOrbaxArray(layout, kAuxState, weights, options_.arrays));
    }
    for (const auto& [slot, moments] : source_.state()->slots) {
      const TaskTable table(*moments, {}, config_, true);
      for (const MaxTextArray& layout : layouts) {
        if (!LearnsByCounting(layout.role))
          arrays_.push_back(PlanOrbaxArray(layout, kAdamState + slot + ".params.", table, options_.arrays));
      }
    }
  }

  // The hub's copies of embedding and head in an MTP module have no place in MaxText's tree: they are made again on the way back.
  void CompareSharedCopies() {
    const ModelSpec spec(config_);
    for (const ParamSpec& tensor : spec) {
      if (!tensor.is_copy()) continue;
      const auto copy = source_.Find(tensor.name);
      has_shared_copies_ = has_shared_copies_ && copy.has_value();
      if (copy && source_.has_data() && !SameContent(*copy, *source_.Find(spec.Original(tensor).name))) {
        spdlog::warn("{}: {} differs from the main model's; MaxText shares the two, so the copy is lost", source_.companions().string(),
                     tensor.name);
      }
    }
  }

  bool SameContent(size_t a, size_t b) const {
    const SourceTensor &x = source_.tensor(a), &y = source_.tensor(b);
    if (x.dtype != y.dtype || x.shape != y.shape) return false;
    const int64_t width = DTypeSize(x.dtype);
    std::vector<std::byte> one, two;
    return ForPieces(x.shape.NumElements(), width, std::lcm(x.unit, y.unit), 4 << 20, [&](int64_t begin, int64_t count) {
      one.resize(static_cast<size_t>(count * width));
      two.resize(one.size());
      source_.Read(a, begin, count, one);
      source_.Read(b, begin, count, two);
      return one == two;
    });
  }

  void PlanUnits() {
    int64_t bytes = 0;
    for (size_t a = 0; a < arrays_.size(); ++a) {
      const ZarrArray& zarr = arrays_[a].zarr;
      const Shape grid = zarr.Grid();
      if (!options_.ocdbt) plan_.push_back({arrays_[a].name, {}});
      for (int64_t i = 0; i < grid.NumElements(); ++i) {
        const bool full = options_.ocdbt && (plan_.empty() || bytes + zarr.ChunkBytes() > options_.target_file_size);
        if (full) {
          plan_.push_back({"d/" + HexName(options_.identity, std::to_string(plan_.size())), {}});
          bytes = 0;
        }
        plan_.back().chunks.push_back({a, Unravel(i, grid)});
        bytes += zarr.ChunkBytes();
      }
    }
    for (const Unit& unit : plan_) {
      int64_t total = 0;
      for (const ChunkRef& chunk : unit.chunks) total += arrays_[chunk.array].zarr.ChunkBytes();
      units_.push_back({unit.file, total});
    }
  }

  std::span<const std::byte> Encoded(const ChunkRef& ref, Worker& worker) const {
    const OrbaxArray& array = arrays_[ref.array];
    return worker.encoder.Encode(array.zarr, worker.chunks.Read(array, ref.index));
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
      const auto bytes = Encoded(ref, *workers_[static_cast<size_t>(w)]);
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
  const char* MetadataFile() const { return options_.arrays.zarr3 ? kZarr3File : kZarr2File; }

  Json WriteArrayFolders(const Unit& unit, const fs::path& folder, const ConvertProgress& done) {
    const fs::path items = folder / "items";
    fs::remove_all(items / unit.file);
    fs::create_directories(items / unit.file);
    std::atomic<uint64_t> total = 0;
    runner_.Run(std::ssize(unit.chunks), [&](int64_t i, int w) {
      const ChunkRef& ref = unit.chunks[static_cast<size_t>(i)];
      const auto bytes = Encoded(ref, *workers_[static_cast<size_t>(w)]);
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

  static std::string KeyOf(const SmallArray& array) {
    Shape first = array.zarr.shape;
    for (int a = 0; a < first.rank(); ++a) first[a] = 0;
    return array.leaf.name + "/" + array.zarr.ChunkKey(first);
  }

  void WriteSmallFolders(const fs::path& items) const {
    for (const SmallArray& array : small_) {
      const fs::path value = items / KeyOf(array);
      fs::create_directories(value.parent_path());
      WriteFileAtomically(items / array.leaf.name / MetadataFile(), FormatZarr(array.zarr));
      WriteFileAtomically(value, array.bytes);
    }
  }

  void WriteTree(const fs::path& items, const std::map<std::string, Json>& records) const {
    std::map<std::string, OcdbtItem> tree;
    for (const SmallArray& array : small_) {
      tree[array.leaf.name + "/" + MetadataFile()] = {true, FormatZarr(array.zarr)};
      tree[KeyOf(array)] = {true, array.bytes};
    }
    for (const OrbaxArray& array : arrays_) tree[array.name + "/" + MetadataFile()] = {true, FormatZarr(array.zarr)};
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
  std::vector<OrbaxArray> arrays_;
  std::vector<SmallArray> small_;
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
