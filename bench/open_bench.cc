// How long a checkpoint of V3's size takes to open: its 163 files and 91,991 tensors as headers over empty data (some MB on disk), made in
// TMPDIR or, to time whole commands on it, in the folder that --heads= names:
//   open_bench --heads=DIR && time fathom inspect DIR
// CPU is the processor time of all threads.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/base/scratch_folder.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/convert/hub_tensors.h"
#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/infer/mapped_model.h"

namespace fathom {
namespace {

constexpr size_t kFiles = 163;

// Consecutive tensors, about the same number of bytes in each file.
std::vector<std::vector<TensorInfo>> InFiles(const std::vector<TensorInfo>& tensors) {
  int64_t total = 0, done = 0;
  for (const TensorInfo& tensor : tensors) total += tensor.NumBytes();
  std::vector<std::vector<TensorInfo>> files(1);
  for (const TensorInfo& tensor : tensors) {
    if (files.size() < kFiles && done >= total / static_cast<int64_t>(kFiles) * std::ssize(files)) files.emplace_back();
    files.back().push_back(tensor);
    done += tensor.NumBytes();
  }
  return files;
}

void WriteHeads(const std::filesystem::path& dir) {
  std::filesystem::create_directories(dir);
  const ModelConfig config = HubModel(RunConfig::Resolve({"model_name=deepseek3-671b"}));
  const auto files = InFiles(HubTensors(config, true));
  Json index = {{"metadata", Json::object()}, {"weight_map", Json::object()}};
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:06}.safetensors", i + 1, files.size());
    SafetensorsWriter(dir / name, files[i], {{"format", "pt"}}, SafetensorsWriter::Share::kHeader).Close();
    for (const TensorInfo& tensor : files[i]) index["weight_map"][tensor.name] = name;
  }
  WriteFileAtomically(dir / "model.safetensors.index.json", index.dump());
  Json json = ModelConfigToJson(config);
  json["quantization_config"] = {
      {"quant_method", "fp8"}, {"fmt", "e4m3"}, {"activation_scheme", "dynamic"}, {"weight_block_size", {128, 128}}};
  WriteFileAtomically(dir / "config.json", json.dump(1));
}

void Register(const char* name, const std::filesystem::path& dir, void (*open)(const std::filesystem::path&)) {
  benchmark::RegisterBenchmark(name,
                               [=](benchmark::State& state) {
                                 for (auto _ : state) open(dir);
                               })
      ->MeasureProcessCPUTime()
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  using namespace fathom;
  constexpr std::string_view kHeads = "--heads=";
  if (argc == 2 && std::string_view(argv[1]).starts_with(kHeads)) {
    WriteHeads(std::string(argv[1]).substr(kHeads.size()));
    return 0;
  }
  benchmark::Initialize(&argc, argv);
  const ScratchFolder folder;
  SetThreads(0);
  WriteHeads(folder.path());
  Register("files", folder.path(),
           [](const std::filesystem::path& dir) { benchmark::DoNotOptimize(TensorFolder::Open(dir).names().size()); });
  Register("checkpoint", folder.path(),
           [](const std::filesystem::path& dir) { benchmark::DoNotOptimize(Checkpoint::Open(dir).names().size()); });
  Register("model to decode with", folder.path(), [](const std::filesystem::path& dir) {
    benchmark::DoNotOptimize(MappedModel(Checkpoint::Open(dir), DType::kBF16, 4096).WeightBytes());
  });
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
