#include "fathom/checkpoint/convert/convert.h"

#include <algorithm>
#include <mutex>
#include <optional>

#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/base/log.h"
#include "fathom/base/progress.h"
#include "fathom/checkpoint/convert/convert_journal.h"
#include "fathom/checkpoint/convert/hub_tensors.h"
#include "fathom/checkpoint/hub/staged_folder.h"
#include "fathom/checkpoint/hub/validate.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr int kJournalVersion = 2;
// What the program takes before it converts anything: code, libraries, tables.
constexpr int64_t kBaseMemory = 160 << 20;
constexpr int64_t kSpareDisk = 16 << 20;

fs::path ExistingParent(const fs::path& path) {
  fs::path parent = fs::absolute(path.empty() ? "." : path).lexically_normal();
  while (!fs::exists(parent) && parent.has_relative_path()) parent = parent.parent_path();
  return fs::is_directory(parent) ? parent : parent.parent_path();
}

bool IsInside(const fs::path& path, const fs::path& folder) {
  const fs::path inner = fs::weakly_canonical(fs::absolute(path)), outer = fs::weakly_canonical(fs::absolute(folder));
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

int64_t CacheBytes(const ConvertOptions& options) { return std::max<int64_t>(16 << 20, options.memory_limit / 4); }

// As every command that opens such a folder. One whose config.json describes no model (some shards, to try the speed) is converted as it
// stands.
void CheckAgainstConfig(const ConvertSource& source) {
  if (source.folder() == nullptr || !source.raw_config().contains("num_hidden_layers")) return;
  ValidateAgainstConfig(*source.folder(), source.config());
}

std::unique_ptr<ConvertSource> OpenSource(const ConvertOptions& options) {
  SourceOptions source{CacheBytes(options), ExistingParent(options.output), options.model, {}, options.ignore_config_keys};
  source.training_state = options.full_state && options.dtype.target != TargetDType::kF8 && options.adapter.empty();
  auto opened = OpenConvertSource(options.input, source);
  CheckAgainstConfig(*opened);
  return opened;
}

std::unique_ptr<ConvertSource> HubSourceOf(const ModelConfig& model) { return MakeHubSource(model, IsFp8OnHub(model)); }

// The folder that appears at the end.
fs::path Target(const ConvertOptions& options) { return options.to == CheckpointFormat::kOrbax ? options.output / "0" : options.output; }

// With the adapter, read for the input's model.
ConvertOptions WithAdapter(ConvertOptions options, const ConvertSource& source) {
  if (!options.adapter.empty())
    options.dtype.adapter = std::make_shared<const PeftAdapter>(ReadPeftAdapter(options.adapter, ModelSpec(source.config())));
  return options;
}

// Every file that is read.
FileStamps StampsOf(const ConvertOptions& options, const ConvertSource& source) {
  std::vector<fs::path> files = source.files();
  if (!options.adapter.empty()) files.insert(files.end(), {options.adapter / kAdapterConfig, options.adapter / kAdapterFile});
  return FileStamps(std::move(files));
}

// Everything that decides on the bytes written.
Json Identity(const ConvertOptions& options, const FileStamps& stamps, const ConvertSource& source) {
  return {{"version", kJournalVersion},
          {"inputs", stamps.ToJson()},
          {"config", source.raw_config()},
          {"to", static_cast<int>(options.to)},
          {"dtype", static_cast<int>(options.dtype.target)},
          {"scale_format", static_cast<int>(options.dtype.scale_format)},
          {"full_state", options.full_state},
          {"scan_layers", options.scan_layers},
          {"ocdbt", options.ocdbt},
          {"zarr3", options.zarr3},
          {"zstd_level", options.zstd_level},
          {"max_shard_size", options.max_shard_size},
          {"target_file_size", options.target_file_size},
          {"memory_limit", options.memory_limit}};
}

std::unique_ptr<ConvertOutput> MakeOutput(const ConvertOptions& options, const ConvertSource& source, const FileStamps& stamps) {
  const int64_t memory = std::max<int64_t>(options.memory_limit - kBaseMemory - (source.is_orbax() ? CacheBytes(options) : 0), 0) * 3 / 4;
  if (options.to == CheckpointFormat::kHuggingFace) return MakeHfOutput(source, {options.dtype, options.max_shard_size, memory});
  OrbaxOutputOptions orbax;
  orbax.dtype = options.dtype;
  orbax.scan_layers = options.scan_layers;
  orbax.ocdbt = options.ocdbt;
  orbax.arrays.zarr3 = options.zarr3;
  orbax.arrays.zstd_level = options.zstd_level;
  orbax.target_file_size = options.target_file_size;
  orbax.arrays.max_chunk_bytes = std::clamp<int64_t>(options.memory_limit / 32, 64 << 10, 32 << 20);
  orbax.arrays.whole_array_bytes = orbax.arrays.max_chunk_bytes / 8;
  orbax.memory = memory;
  orbax.time = stamps.LatestChange();
  orbax.identity = Identity(options, stamps, source).dump(-1, ' ', true, Json::error_handler_t::replace);
  return MakeOrbaxOutput(source, orbax);
}

// overwrite=true replaces a checkpoint, not whatever else lies under a name that was mistyped.
void CheckReplaceable(const fs::path& target) {
  if (!fs::is_directory(target) || fs::is_empty(target)) return;
  for (const char* sign : {"config.json", "model.safetensors", "model.safetensors.index.json", "items", "_CHECKPOINT_METADATA"}) {
    if (fs::exists(target / sign)) return;
  }
  Throw(ErrorCode::kUsage, "output {} exists and is no checkpoint: overwrite=true does not replace it", target.string());
}

void CheckPaths(const ConvertOptions& options) {
  if (IsInside(options.output, options.input))
    Throw(ErrorCode::kUsage, "output {} lies in the input {}; choose another place", options.output.string(), options.input.string());
  if (IsInside(options.input, Target(options)) && options.overwrite)
    Throw(ErrorCode::kUsage, "input {} lies in the output, which overwrite=true would remove", options.input.string());
  if (options.overwrite) CheckReplaceable(Target(options));
}

void CheckDisk(const ConvertOutput& output, const ConvertJournal& journal, const fs::path& folder) {
  int64_t missing = kSpareDisk;
  for (size_t u = 0; u < output.units().size(); ++u) {
    const Json* record = journal.Find(output.units()[u].name);
    if (record == nullptr || !output.StillThere(u, folder, *record)) missing += output.units()[u].bytes;
  }
  CheckFreeSpace(folder, missing);
}

// Shared by the threads that convert.
class Meter {
 public:
  Meter(int64_t total, bool show) {
    if (show) progress_.emplace("converting", "GB", static_cast<double>(total), 1e9);
  }
  void Add(int64_t bytes) {
    const std::scoped_lock lock(mutex_);
    done_ += bytes;
    if (progress_) progress_->Update(static_cast<double>(done_));
  }
  void Finish() {
    if (progress_) progress_->Finish();
  }

 private:
  std::mutex mutex_;
  int64_t done_ = 0;
  std::optional<Progress> progress_;
};

int64_t BytesIn(const ConvertSource& source) {
  int64_t total = 0;
  for (const SourceTensor& tensor : source.tensors()) total += tensor.NumBytes();
  if (source.state() == nullptr) return total;
  for (const auto& [slot, moments] : source.state()->slots) total += BytesIn(*moments);
  return total;
}

int64_t TotalBytes(const ConvertOutput& output) {
  int64_t total = 0;
  for (const OutputUnit& unit : output.units()) total += unit.bytes;
  return total;
}

// Errors of writing say how far it got and that the next run goes on from there.
[[noreturn]] void Explain(const Error& error, const ConvertOutput& output, const ConvertJournal& journal) {
  if (error.code() != ErrorCode::kResource) throw error;
  int64_t left = 0;
  for (const OutputUnit& unit : output.units()) left += journal.Find(unit.name) == nullptr ? unit.bytes : 0;
  Throw(ErrorCode::kResource, "{} (up to {} are still to be written; the same command continues)", error.what(),
        FormatBytes(static_cast<double>(left)));
}

// What every process that converts has in hand.
struct Work {
  const ConvertOptions& options;
  ConvertOutput& output;
  const FileStamps& stamps;
  fs::path folder;
  ConvertJournal* journal;  // of the first; null: it is another process's
};

bool IsDone(const Work& work, size_t unit, const std::map<std::string, Json>& done) {
  const auto record = done.find(work.output.units()[unit].name);
  return record != done.end() && work.output.StillThere(unit, work.folder, record->second);
}

// Each process writes one of these units, in their order; returns the records of all.
std::vector<Json> WriteRound(const Work& work, std::span<const size_t> round, Meter& meter) {
  const auto me = static_cast<size_t>(work.options.ranks.rank);
  std::vector<Json> records(round.size());
  if (me < round.size()) records[me] = work.output.WriteUnit(round[me], work.folder, [&](int64_t bytes) { meter.Add(bytes); });
  work.stamps.CheckUnchanged();
  if (work.options.ranks.count == 1) return records;
  const auto texts = work.options.ranks.gather(me < round.size() ? records[me].dump() : "");
  for (size_t i = 0; i < round.size(); ++i) {
    records[i] = Json::parse(texts[i]);
    if (i != me) meter.Add(work.output.units()[round[i]].bytes);
  }
  return records;
}

// Returns how many an earlier run had written.
int64_t WriteUnits(const Work& work, const std::map<std::string, Json>& done) {
  const std::vector<OutputUnit>& units = work.output.units();
  Meter meter(TotalBytes(work.output), work.options.show_progress && work.journal != nullptr);
  std::vector<size_t> left;
  for (size_t u = 0; u < units.size(); ++u) {
    if (IsDone(work, u, done))
      meter.Add(units[u].bytes);
    else
      left.push_back(u);
  }
  const auto each = static_cast<size_t>(work.options.ranks.count);
  for (size_t first = 0; first < left.size(); first += each) {
    const auto round = std::span(left).subspan(first, std::min(each, left.size() - first));
    const std::vector<Json> records = WriteRound(work, round, meter);
    for (size_t i = 0; i < round.size() && work.journal != nullptr; ++i) work.journal->Add(units[round[i]].name, records[i]);
  }
  meter.Finish();
  return std::ssize(units) - std::ssize(left);
}

// The folder that the output grows in, with its journal.
struct Stage {
  Stage(const ConvertOptions& options, const Json& identity)
      : folder(Target(options), options.overwrite, true), journal(folder.path(), identity) {}
  StagedFolder folder;
  ConvertJournal journal;
};

// Made by the first process, which tells the others what is there already, or why there is none.
std::map<std::string, Json> OpenStage(const Work& work, const Json& identity, std::optional<Stage>& stage) {
  const ConvertRanks& ranks = work.options.ranks;
  Json told;
  if (ranks.rank == 0) {
    try {
      if (!StagedFolder::Exists(Target(work.options)))
        CheckFreeSpace(Target(work.options), TotalBytes(work.output) + kSpareDisk);  // before anything is made
      stage.emplace(work.options, identity);
      told["done"] = stage->journal.done();
    } catch (const Error& error) {
      if (ranks.count == 1) throw;
      told = {{"code", static_cast<int>(error.code())}, {"error", error.what()}};
    }
  }
  if (ranks.count > 1) told = Json::parse(ranks.gather(told.dump())[0]);
  if (told.contains("error")) Throw(static_cast<ErrorCode>(told["code"].get<int>()), "{}", told["error"].get<std::string>());
  return told["done"].get<std::map<std::string, Json>>();
}

// The checkpoint appears.
void Complete(ConvertOutput& output, const FileStamps& stamps, Stage& stage, ConvertResult& result) {
  output.Finish(stage.folder.path(), stage.journal.done());
  stamps.CheckUnchanged();
  stage.journal.Remove();
  stage.folder.Commit();
  for (const auto& [unit, record] : stage.journal.done()) result.not_reproduced += record.value(kNotReproduced, int64_t{0});
}

}  // namespace

ConvertResult Convert(const ConvertOptions& options) {
  const Stopwatch clock;
  CheckPaths(options);
  const auto source = OpenSource(options);
  if (options.check_model && !source->raw_config().is_null() && options.to == CheckpointFormat::kOrbax)
    options.check_model(source->config(), (source->companions() / "config.json").string());
  const FileStamps stamps = StampsOf(options, *source);
  const auto output = MakeOutput(WithAdapter(options, *source), *source, stamps);
  std::optional<Stage> stage;
  Work work{options, *output, stamps, StagedFolder::PathFor(Target(options)), nullptr};
  const auto done = OpenStage(work, Identity(options, stamps, *source), stage);
  ConvertResult result;
  try {
    if (stage) {
      work.journal = &stage->journal;
      CheckDisk(*output, stage->journal, work.folder);
    }
    result.units_resumed = WriteUnits(work, done);
    if (stage) Complete(*output, stamps, *stage, result);
  } catch (const Error& error) {
    if (!stage) throw;
    if (stage->journal.done().empty()) stage->folder.Discard();
    Explain(error, *output, stage->journal);
  }
  if (options.ranks.count > 1) options.ranks.gather("");  // the folder has its name
  result.tensors = std::ssize(source->tensors());
  result.bytes = TotalBytes(*output);
  result.units = std::ssize(output->units());
  if (source->state() != nullptr) result.step = source->state()->step;
  result.seconds = clock.Seconds();
  result.output = options.to == CheckpointFormat::kOrbax ? Target(options) / "items" : Target(options);
  return result;
}

ConvertPlan PlanConvert(const ConvertOptions& options) {
  const auto source = options.input.empty() ? HubSourceOf(options.model()) : OpenSource(options);
  const FileStamps stamps = StampsOf(options, *source);
  const auto output = MakeOutput(WithAdapter(options, *source), *source, stamps);
  ConvertPlan plan;
  plan.input_bytes = BytesIn(*source);
  plan.output_bytes = TotalBytes(*output);
  plan.tensors = std::ssize(source->tensors());
  plan.files = std::ssize(output->units());
  return plan;
}

}  // namespace fathom
