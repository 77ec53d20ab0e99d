#include "apps/readable_checkpoint.h"

#include <unistd.h>

#include "fathom/base/log.h"
#include "fathom/checkpoint/convert.h"
#include "fathom/checkpoint/orbax.h"
#include "fathom/config/model_from_flags.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char* kFlag = "load_parameters_path";

fs::path NewTemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "fathom-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) Throw(ErrorCode::kResource, "{}: cannot create a folder for temporary files (TMPDIR)", name);
  return name;
}

}  // namespace

ReadableCheckpoint::ReadableCheckpoint(RunConfig& config) {
  const fs::path given = config.String(kFlag);
  if (given.empty() || !FindOrbaxItems(given)) return;
  folder_ = NewTemporaryFolder();
  ConvertOptions options{.input = given, .output = folder_ / "hf", .full_state = false};
  if (config.Given("model_name") || config.Given("base_emb_dim")) options.model = [&config] { return ModelFromFlags(config); };
  spdlog::info("{}: an Orbax checkpoint; read through {}", given.string(), options.output.string());
  try {
    Convert(options);
  } catch (...) {
    fs::remove_all(folder_);
    throw;
  }
  config.Set(kFlag, options.output.string(), "converted");
}

ReadableCheckpoint::~ReadableCheckpoint() {
  std::error_code ignored;
  if (!folder_.empty()) fs::remove_all(folder_, ignored);
}

}  // namespace fathom
