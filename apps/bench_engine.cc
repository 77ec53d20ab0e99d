#include "apps/bench_engine.h"

#include "apps/readable_checkpoint.h"
#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/checkpoint/convert/hub_tensors.h"
#include "fathom/data/synthetic.h"
#include "fathom/infer/decode_plan.h"
#include "fathom/infer/generate.h"
#include "fathom/model/layer_flags.h"
#include "fathom/train/flops.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

constexpr int kSteps = 5;
constexpr int64_t kPromptTokens = 32, kNewTokens = 64;

}  // namespace

EngineRate BenchTrain(const RunConfig& config, double gflops) {
  const TrainOptions options = ReadTrainOptions(config);
  if (options.load_parameters_path.empty() && !config.Given("model_name"))
    Throw(ErrorCode::kUsage, "bench train needs model_name= or load_parameters_path=");
  LoadedModel loaded = LoadModel(config, options, options.load_parameters_path);
  const ModelConfig& model = loaded.config;
  TrainSession session(model, options, std::move(loaded.params));
  SyntheticSource source({options.rows * options.accumulation, options.length, model.vocab_size, 0});
  Batch batch;
  std::vector<double> rates;
  for (int step = -1; step < kSteps; ++step) {  // the first one touches all memory and doesn't count
    source.Next(&batch);
    const Stopwatch clock;
    session.Step(batch, 0);
    if (step >= 0) rates.push_back(static_cast<double>(batch.tokens()) / clock.Seconds());
  }
  const Rate rate = RateOf(std::move(rates));
  return {rate, rate.median * TrainFlopsPerToken(model, options) * 1e-9 / gflops};
}

EngineRate BenchDecode(const RunConfig& config, double read_gb_s) {
  const std::filesystem::path dir = config.String("load_parameters_path");
  if (dir.empty()) Throw(ErrorCode::kUsage, "bench decode needs load_parameters_path= (a checkpoint's folder)");
  const DType compute = ParseComputeDType(config, "dtype");
  const MappedModel served(OpenCheckpoint(config, dir), compute, kPromptTokens + kNewTokens);
  Engine engine(served, 1);
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < kPromptTokens; ++i) prompt.push_back(static_cast<int32_t>(i % engine.config().vocab_size));
  const GenerateOptions options{.max_new_tokens = kNewTokens, .ignore_eos = true};
  std::vector<double> rates;
  for (int run = 0; run < 3; ++run)
    rates.push_back(Generate(engine, nullptr, prompt, options, [](std::string_view) {}).DecodeTokensPerSecond());
  const Rate rate = RateOf(std::move(rates));
  const DecodePlan plan = PlanDecode(Sharding(engine.config(), {}), served.params(), compute, {1, kPromptTokens, served.capacity()});
  return {rate, rate.median * static_cast<double>(plan.step.weights) * 1e-9 / read_gb_s};
}

}  // namespace fathom
