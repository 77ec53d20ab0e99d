#include <algorithm>
#include <atomic>
#include <mutex>

#include "fathom/base/error.h"
#include "fathom/checkpoint/convert/convert_output.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/checkpoint/hub/train_state.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kSlabBytes = 8 << 20, kDefaultShard = 5'000'000'000;

// Elements of one tensor that are converted at once.
struct Slab {
  size_t tensor;  // in the writer
  const TensorTask* task;
  int64_t begin, count;
};

struct File {
  std::string name;  // relative to the output
  std::vector<size_t> tasks;
};

class HfOutput : public ConvertOutput {
 public:
  HfOutput(const ConvertSource& source, const HfOutputOptions& options)
      : source_(source),
        options_(options),
        tasks_(PlanTensors(source, options.dtype)),
        runner_(static_cast<int>(options.memory / (5 * kSlabBytes))) {
    PlanFiles();
    num_model_files_ = files_.size();
    if (source.state() != nullptr) PlanSlots(*source.state());
    for (const File& file : files_) units_.push_back({file.name, SafetensorsWriter::FileSize(Infos(file))});
    for (int w = 0; w < runner_.workers(); ++w) workers_.push_back(std::make_unique<Worker>());
  }

  Json WriteUnit(size_t u, const fs::path& folder, const ConvertProgress& done) override {
    const fs::path path = folder / files_[u].name;
    fs::create_directories(path.parent_path());
    fs::remove(path);  // and not through a link that somebody put there
    SafetensorsWriter writer(path, Infos(files_[u]));
    const auto slabs = Slabs(files_[u]);
    std::atomic<int64_t> not_reproduced = 0;
    runner_.Run(std::ssize(slabs), [&](int64_t i, int w) {
      const Slab& slab = slabs[static_cast<size_t>(i)];
      not_reproduced += Convert(slab, *workers_[static_cast<size_t>(w)], writer);
      done(slab.count * DTypeSize(slab.task->info.dtype));
    });
    writer.Close();
    return {{"bytes", fs::file_size(path)}, {kNotReproduced, not_reproduced.load()}};
  }

  bool StillThere(size_t u, const fs::path& folder, const Json& record) const override {
    const fs::path path = folder / files_[u].name;
    return fs::is_regular_file(fs::symlink_status(path)) && record.is_object() && record.value("bytes", uint64_t{0}) == fs::file_size(path);
  }

  void Finish(const fs::path& folder, const std::map<std::string, Json>&) override {
    if (!source_.companions().empty()) CopyCompanions(source_.companions(), folder);
    if (num_model_files_ > 1 || files_[0].name != kSingleFile) WriteFileAtomically(folder / kIndexFile, Index().dump(2) + "\n");
    if (!source_.raw_config().is_null())
      WriteFileAtomically(folder / "config.json", ConvertedConfig(source_, tasks_, options_.dtype).dump(2) + "\n");
    if (const SourceState* state = source_.state()) {
      fs::create_directories(TrainStateFolder(folder));
      WriteTrainStateFile(folder, state->step, state->values);
    }
  }

 private:
  struct Worker {
    PieceConverter converter;
    std::vector<std::byte> out, scales;
  };

  int64_t BytesOf(const TensorTask& task) const { return task.info.NumBytes() + (task.quantize ? task.ScaleInfo().NumBytes() : 0); }

  void PlanFiles() {
    if (!source_.is_orbax() && options_.max_shard_size == 0) {
      for (size_t t = 0; t < tasks_.size(); ++t) FileNamed(source_.tensor(tasks_[t].source).file).tasks.push_back(t);
      // A file that held nothing but scales is gone.
    } else {
      std::vector<TensorInfo> sizes;
      for (const TensorTask& task : tasks_) sizes.push_back({task.info.name, DType::kU8, {BytesOf(task)}});
      const auto shards = PlanShards(sizes, options_.max_shard_size > 0 ? options_.max_shard_size : kDefaultShard);
      for (size_t s = 0; s < shards.size(); ++s) files_.push_back({ShardFileName(s, shards.size()), shards[s]});
    }
    if (files_.empty()) Throw(ErrorCode::kInput, "{}: holds no tensors", source_.companions().string());
  }

  // A file for each slot of the optimizer, as training writes them; the moments' dtypes stay.
  void PlanSlots(const SourceState& state) {
    for (const auto& [slot, moments] : state.slots) {
      File file = {(TrainStateFolder("") / (slot + ".safetensors")).string(), {}};
      for (const TensorTask& task : PlanTensors(*moments, {})) {
        file.tasks.push_back(tasks_.size());
        tasks_.push_back(task);
      }
      files_.push_back(std::move(file));
    }
  }

  File& FileNamed(const std::string& name) {
    const auto found = std::ranges::find(files_, name, &File::name);
    if (found != files_.end()) return *found;
    files_.push_back({name, {}});
    return files_.back();
  }

  std::vector<TensorInfo> Infos(const File& file) const {
    std::vector<TensorInfo> infos;
    for (const size_t t : file.tasks) {
      infos.push_back(tasks_[t].info);
      if (tasks_[t].quantize) infos.push_back(tasks_[t].ScaleInfo());
    }
    return infos;
  }

  std::vector<Slab> Slabs(const File& file) const {
    std::vector<Slab> slabs;
    size_t tensor = 0;
    for (const size_t t : file.tasks) {
      const TensorTask& task = tasks_[t];
      const int64_t width = std::max(DTypeSize(task.info.dtype), DTypeSize(task.Stored().dtype));
      ForPieces(task.info.shape.NumElements(), width, task.unit, kSlabBytes, [&](int64_t begin, int64_t count) {
        slabs.push_back({tensor, &task, begin, count});
        return true;
      });
      tensor += task.quantize ? 2 : 1;
    }
    return slabs;
  }

  // Returns how many elements FP8 does not give back.
  int64_t Convert(const Slab& slab, Worker& worker, SafetensorsWriter& writer) const {
    const TensorTask& task = *slab.task;
    int64_t not_reproduced = 0;
    const int64_t width = DTypeSize(task.info.dtype);
    const auto out = Scratch(worker.out, slab.count * width);
    if (task.quantize) {
      const int64_t columns = task.info.shape[1], row_bytes = task.ScaleInfo().shape[1] * 4;
      const auto scales = Scratch(worker.scales, ScaleShape({slab.count / columns, columns})[0] * row_bytes);
      not_reproduced = worker.converter.Quantize(task, slab.begin, slab.count, options_.dtype.scale_format, out, scales);
      writer.WriteBytes(slab.tensor + 1, slab.begin / columns / kScaleBlock * row_bytes, scales);
    } else {
      worker.converter.Read(task, slab.begin, slab.count, out);
    }
    writer.WriteBytes(slab.tensor, slab.begin * width, out);
    return not_reproduced;
  }

  Json Index() const {
    int64_t total = 0;
    Json map = Json::object();
    for (const File& file : std::span(files_).first(num_model_files_)) {
      for (const TensorInfo& info : Infos(file)) {
        total += info.NumBytes();
        map[info.name] = file.name;
      }
    }
    return {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
  }

  const ConvertSource& source_;
  HfOutputOptions options_;
  std::vector<TensorTask> tasks_;  // of the model, then of the slots
  std::vector<File> files_;        // likewise
  size_t num_model_files_ = 0;
  JobRunner runner_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace

std::unique_ptr<ConvertOutput> MakeHfOutput(const ConvertSource& source, const HfOutputOptions& options) {
  return std::make_unique<HfOutput>(source, options);
}

Json ConvertedConfig(const ConvertSource& source, const std::vector<TensorTask>& tasks, const DTypeOptions& options) {
  Json config = source.raw_config();
  const bool fp8 = std::ranges::any_of(tasks, [](const TensorTask& task) { return task.info.dtype == DType::kF8E4M3; });
  if (!fp8) config.erase("quantization_config");
  if (fp8 && options.target == TargetDType::kF8) {
    Json quantization = config.value("quantization_config", Json::object());
    quantization.update({{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"activation_scheme", "dynamic"}, {"weight_block_size", {128, 128}}});
    if (options.scale_format == ScaleFormat::kUe8m0) quantization["scale_fmt"] = "ue8m0";
    config["quantization_config"] = quantization;
  }
  if (options.target == TargetDType::kKeep && !source.is_orbax()) return config;
  const auto embedding = std::ranges::find(tasks, "model.embed_tokens.weight", [](const TensorTask& task) { return task.info.name; });
  if (embedding == tasks.end()) return config;
  const DType stored = embedding->info.dtype;
  SetStoredDType(stored == DType::kF32 ? "float32" : stored == DType::kF16 ? "float16" : "bfloat16", config);
  return config;
}

}  // namespace fathom
