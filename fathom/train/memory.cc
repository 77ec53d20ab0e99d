#include "fathom/train/memory.h"

#include <algorithm>
#include <map>

#include "fathom/train/session.h"

namespace fathom {
namespace {

struct ParameterMemory {
  int64_t values = 0, copies = 0, gradients = 0, moments = 0;
};

ParameterMemory SumParameters(const ModelConfig& config, const TrainOptions& options) {
  ParameterMemory sum;
  const ModelSpec spec(config);
  const Treatments treatments(spec, options);
  const bool mapped = !options.load_parameters_path.empty();  // what stays is read where it lies
  int64_t moving = 0;
  for (const ParamSpec& param : spec) {
    if (param.is_copy() && SharesMtpHeads(options)) continue;
    const DType stored = LearnsByCounting(param.role) ? DType::kF32 : options.weights;
    const int64_t elements = param.shape.NumElements();
    if (!mapped || !treatments.Stays(param)) sum.values += elements * DTypeSize(stored);
    if (treatments.HasBF16Copy(param)) sum.copies += elements * DTypeSize(DType::kBF16);
    if (treatments.HasGradient(param)) sum.gradients += elements * DTypeSize(DType::kF32);
    if (treatments.Of(param) == Treatment::kTrained) moving += elements;
  }
  sum.moments = Optimizer::StateBytes(options.optimizer, moving);
  return sum;
}

int64_t LargestLayerElements(const ModelConfig& config) {
  std::map<int64_t, int64_t> elements;
  for (const ParamSpec& param : ModelSpec(config)) {
    if (param.layer >= 0 && !param.is_mtp()) elements[param.layer] += param.shape.NumElements();
  }
  int64_t largest = 0;
  for (const auto& [layer, sum] : elements) largest = std::max(largest, sum);
  return largest;
}

}  // namespace

// The FP8 recipe holds what it made of a layer's weights and of a product's operands in f32.
int64_t TrainScratchBytes(const Decoder& decoder, const TrainOptions& options) {
  const int64_t plain = decoder.ScratchBytes(options.compute, options.rows * options.length, MtpModules(options));
  return options.fp8_block ? 2 * plain + LargestLayerElements(decoder.config()) * DTypeSize(DType::kF32) : plain;
}

std::vector<MemoryRow> TrainMemory(const ModelConfig& config, const TrainOptions& options) {
  const ParameterMemory parameters = SumParameters(config, options);
  const Decoder decoder(config, options.layers);
  const int64_t tokens = options.rows * options.length;
  return {{"parameters", parameters.values},
          {"bf16 copy", parameters.copies},
          {"gradients", parameters.gradients},
          {"moments", parameters.moments},
          {"activations", decoder.SavedBytes(options.compute, tokens, options.remat, MtpModules(options))},
          {"scratch", TrainScratchBytes(decoder, options)}};
}

}  // namespace fathom
