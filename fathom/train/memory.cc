#include "fathom/train/memory.h"

#include <algorithm>
#include <map>

#include "fathom/checkpoint/hub/hf_names.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

struct ParameterMemory {
  int64_t values = 0, copies = 0, gradients = 0, moments = 0;
};

ParameterMemory SumParameters(const ModelConfig& config, const TrainOptions& options) {
  ParameterMemory sum;
  std::vector<OptimizerParam> trained;
  for (const ExpectedTensor& tensor : ExpectedTensors(config)) {
    if (tensor.shared_copy && SharesMtpHeads(options)) continue;
    const DType stored = tensor.kind == TensorKind::kRouterBias ? DType::kF32 : options.weights;
    const int64_t elements = tensor.shape.NumElements();
    sum.values += elements * DTypeSize(stored);
    if (HasBF16Copies(options) && IsCopiedToBF16(tensor.name, tensor.shape)) sum.copies += elements * DTypeSize(DType::kBF16);
    if (!IsTrained(config, options, tensor.name)) continue;
    sum.gradients += elements * DTypeSize(DType::kF32);
    trained.push_back({tensor.name, View(nullptr, stored, tensor.shape), View(nullptr, DType::kF32, tensor.shape), View()});
  }
  ApplyMasks(options.adamw_mask, options.trainable_mask, trained);
  sum.moments = Optimizer::StateBytes(options.optimizer, trained);
  return sum;
}

int64_t LargestLayerElements(const ModelConfig& config) {
  std::map<int64_t, int64_t> elements;
  for (const ExpectedTensor& tensor : ExpectedTensors(config)) {
    if (tensor.layer >= 0 && !tensor.is_mtp) elements[tensor.layer] += tensor.shape.NumElements();
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
