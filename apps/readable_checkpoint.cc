#include "apps/readable_checkpoint.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/log.h"
#include "fathom/base/progress.h"
#include "fathom/checkpoint/convert/convert.h"
#include "fathom/checkpoint/convert/convert_source.h"
#include "fathom/checkpoint/hub/staged_folder.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/checkpoint/orbax/orbax.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/train/checkpoints.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char *kParameters = "load_parameters_path", *kFullState = "load_full_state_path";

// The step that a run of these flags goes on from: what it began with is not needed again, but for the weights below adapters.
std::optional<ResumePoint> FindOwnStep(const RunConfig& config) {
  TrainOptions options = ReadTrainOptions(config);
  if (options.lora.enabled) return std::nullopt;
  options.load_full_state_path.clear();
  return FindResumePoint(options);
}

// Sizes alone: config.json and a safetensors file that is one hole behind its header.
void WriteOutline(const ConvertSource& source, const fs::path& folder) {
  fs::create_directories(folder);
  WriteFileAtomically(folder / "config.json", source.raw_config().dump() + "\n");
  std::vector<const SourceTensor*> tensors;
  for (const SourceTensor& tensor : source.tensors()) tensors.push_back(&tensor);
  std::ranges::stable_sort(tensors, std::greater<>(), [](const SourceTensor* t) { return DTypeSize(t->dtype); });
  Json header = Json::object();
  int64_t end = 0;
  for (const SourceTensor* t : tensors) {
    const int64_t begin = std::exchange(end, end + t->NumBytes());
    header[t->name] = {{"dtype", DTypeName(t->dtype)}, {"shape", t->shape.dims()}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  const fs::path file = folder / kSingleFile;
  WriteFileAtomically(file, std::string(reinterpret_cast<const char*>(&length), sizeof length) + text);
  fs::resize_file(file, sizeof length + length + static_cast<uint64_t>(end));
}

void RefuseOtherPaths(const std::string& flag, const fs::path& given) {
  if (fs::is_regular_file(given)) Throw(ErrorCode::kInput, "{}={}: a file; give the folder of a checkpoint", flag, given.string());
  RefuseRunFolder(given);
}

void ConvertAll(const ConvertOptions& options) {
  ConvertPlan plan;
  {
    const QuietLog quiet;
    plan = PlanConvert(options);
  }
  const std::string size = FormatBytes(static_cast<double>(plan.output_bytes));
  const auto free = FreeSpace(options.output);
  if (free && *free < static_cast<uintmax_t>(plan.output_bytes)) {
    Throw(ErrorCode::kResource,
          "{}: an Orbax checkpoint, read through a copy of {}; {} are free at {}: let TMPDIR name a folder with more room, or convert it "
          "once "
          "(fathom convert)",
          options.input.string(), size, FormatBytes(static_cast<double>(*free)), options.output.string());
  }
  spdlog::info("{}: an Orbax checkpoint; read through a copy of {} in {} (TMPDIR says where)", options.input.string(), size,
               options.output.string());
  Convert(options);
}

}  // namespace

Checkpoint OpenCheckpoint(const RunConfig& config, const fs::path& dir) {
  return Checkpoint::Open(
      dir, {.ignore_config_keys = config.Strings("ignore_config_keys"), .adjust = [&](ModelConfig& model, const std::string& where) {
              FollowGivenFlags(config, model, where);
              CheckModelName(config, model, where);
            }});
}

Checkpoint OpenReference(const RunConfig& config, const fs::path& dir) {
  return Checkpoint::Open(dir, {.ignore_config_keys = config.Strings("ignore_config_keys")});
}

bool IsPlannedByName(const RunConfig& config, const fs::path& given) {
  if (given.empty() || fs::exists(given) || !DescribedModel(config)) return false;
  spdlog::warn("{}: not here; planned with the sizes that the flags say", given.string());
  return true;
}

ReadableCheckpoint::ReadableCheckpoint(const std::string& command, RunConfig& config) {
  const char* flag = config.String(kFullState).empty() ? kParameters : kFullState;  // never both
  const fs::path given = config.String(flag);
  if (command == "plan" && config.String(kFullState).empty() && IsPlannedByName(config, given)) {
    config.Set(flag, std::string(), "not here");
    return;
  }
  RefuseOtherPaths(flag, given);
  if (given.empty() || !FindOrbaxItems(given)) return;
  if (const auto own = command == "train" || command == "sft" ? FindOwnStep(config) : std::nullopt) {
    config.Set(flag, own->dir.string(), "the run's own step");
    return;
  }
  ConvertOptions options = CopyOf(config, given);
  options.full_state = flag == kFullState;
  if (command == "plan") {
    WriteOutline(*OpenConvertSource(given, {.model = options.model, .ignore_config_keys = options.ignore_config_keys}), options.output);
  } else {
    ConvertAll(options);
  }
  config.Set(flag, options.output.string(), "converted");
}

ReadableCheckpoint::ReadableCheckpoint(const RunConfig& config, const std::string& flag) : dir_(config.String(flag)) {
  RefuseOtherPaths(flag, dir_);
  if (!FindOrbaxItems(dir_)) return;
  ConvertOptions options = CopyOf(config, dir_);
  options.full_state = false;
  ConvertAll(options);
  dir_ = options.output;
}

ConvertOptions ReadableCheckpoint::CopyOf(const RunConfig& config, const fs::path& given) {
  folder_.emplace();
  ConvertOptions options{.input = given, .output = folder_->path() / "hf"};
  options.model = DescribedModel(config);
  options.ignore_config_keys = config.Strings("ignore_config_keys");
  return options;
}

}  // namespace fathom
