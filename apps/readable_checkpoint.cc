#include "apps/readable_checkpoint.h"

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/base/log.h"
#include "fathom/checkpoint/convert/convert.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/checkpoint/orbax/orbax.h"
#include "fathom/config/model_from_flags.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char *kParameters = "load_parameters_path", *kFullState = "load_full_state_path";

}  // namespace

Checkpoint OpenCheckpoint(const RunConfig& config, const fs::path& dir) {
  const bool may_lack_indexer = std::ranges::count(config.Strings("init_missing"), "indexer") > 0;
  return Checkpoint::Open(dir, {may_lack_indexer, config.Strings("ignore_config_keys")});
}

ReadableCheckpoint::ReadableCheckpoint(RunConfig& config) {
  const char* flag = config.String(kFullState).empty() ? kParameters : kFullState;  // never both
  const fs::path given = config.String(flag);
  if (fs::is_regular_file(given)) Throw(ErrorCode::kInput, "{}={}: a file; give the folder of a checkpoint", flag, given.string());
  RefuseRunFolder(given);
  if (given.empty() || !FindOrbaxItems(given)) return;
  folder_.emplace();
  ConvertOptions options{.input = given, .output = folder_->path() / "hf", .full_state = flag == kFullState};
  options.model = DescribedModel(config);
  options.ignore_config_keys = config.Strings("ignore_config_keys");
  spdlog::info("{}: an Orbax checkpoint; read through {}", given.string(), options.output.string());
  Convert(options);
  config.Set(flag, options.output.string(), "converted");
}

}  // namespace fathom
