#include "fathom/checkpoint/convert/orbax_state.h"

#include <algorithm>
#include <limits>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"
#include "fathom/checkpoint/hub/train_state.h"

namespace fathom {
namespace {

// Of optax's chain for AdamW: [0] moments, [1] weight decay, which has no state, [2] the learning rate's schedule.
constexpr const char* kDecayState = "opt_state.1";
constexpr const char* kScheduleCount = "opt_state.2.count";
constexpr const char* kMoeBlock = "DeepSeekMoeBlock_0.MoeBlock_0.";

template <class T>
std::string BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

class Builder {
 public:
  explicit Builder(bool zarr3) : zarr3_(zarr3) {}
  std::vector<SmallArray> Take() { return std::move(arrays_); }

  void Add(const OrbaxLeaf& leaf, DType dtype, const Shape& shape, std::string bytes) {
    arrays_.push_back({leaf, PlainZarr(zarr3_, dtype, shape), std::move(bytes)});
  }

  void AddCount(const std::string& name, int64_t value) {
    if (value < 0 || value > std::numeric_limits<int32_t>::max())
      Throw(ErrorCode::kInput, "the training state says {} is {}, which MaxText's int32 does not hold", name, value);
    Add({name}, DType::kI32, {}, BytesOf(std::vector{static_cast<int32_t>(value)}));
  }

  // The streams of one module, or of `stacked` layers of it; 0: not stacked.
  void AddStreams(const std::string& module, int64_t stacked) {
    for (const char* stream : {"aqt", "dropout", "params"}) {
      const std::string name = std::string(kAuxState) + module + "rngs." + stream;
      const auto n = static_cast<uint64_t>(std::max<int64_t>(1, stacked));
      std::vector<uint32_t> keys;
      for (uint64_t i = 0; i < 4 * n; ++i) keys.push_back(static_cast<uint32_t>(CounterRng(0, HashName(name)).Below(i, uint64_t{1} << 32)));
      Add({name + ".count"}, DType::kU32, stacked > 0 ? Shape{stacked} : Shape{}, BytesOf(std::vector<uint32_t>(n)));
      Add({name + ".key"}, DType::kU32, stacked > 0 ? Shape{stacked, 4} : Shape{4}, BytesOf(keys));
    }
  }

  // Where MaxText 0.2.5 has them. Unscanned layers share one, which stands in the tree where it is met first.
  void AddAllStreams(const ModelConfig& config, bool scanned) {
    const int64_t dense =
        config.n_routed_experts > 0 ? std::min(config.first_k_dense_replace, config.num_hidden_layers) : config.num_hidden_layers;
    const int64_t moe = config.num_hidden_layers - dense;
    if (scanned) {
      AddStreams("decoder.", 0);
      if (dense > 0) AddStreams("decoder.dense_layers.", dense);
      if (moe > 0) AddStreams(std::string("decoder.moe_layers.") + kMoeBlock, moe);
    } else {
      AddStreams(dense > 0 ? "decoder.dense_layers_0." : std::string("decoder.moe_layers_0.") + kMoeBlock, 0);
    }
    for (int64_t k = 1; k <= config.num_nextn_predict_layers; ++k)
      AddStreams(fmt::format("mtp_block.mtp_layer_{}.mtp_{}_transformer_layer.{}", k, k, kMoeBlock), 0);
  }

 private:
  bool zarr3_;
  std::vector<SmallArray> arrays_;
};

}  // namespace

std::vector<SmallArray> SmallArraysOf(const SourceState* state, const ModelConfig& config, bool scanned, bool zarr3) {
  Builder builder(zarr3);
  if (state != nullptr && state->values.contains(kOptimizerName)) {
    Throw(ErrorCode::kInput, "the training state is of opt_type={}, of which no Orbax tree is written; full_state=false leaves it out",
          state->values[kOptimizerName].dump());
  }
  if (state == nullptr) {
    builder.Add({kStepArray, "scalar"}, DType::kI64, {}, BytesOf(std::vector<int64_t>{0}));
    return builder.Take();
  }
  builder.AddCount(kStepArray, state->step + 1);  // MaxText counts the steps that are done
  if (state->slots.empty()) return builder.Take();
  builder.AddCount(std::string(kAdamState) + "count", state->optimizer_steps());
  builder.AddCount(kScheduleCount, state->step + 1);
  builder.AddAllStreams(config, scanned);
  return builder.Take();
}

std::vector<OrbaxLeaf> EmptyLeavesOf(const SourceState* state) {
  if (state == nullptr || state->slots.empty()) return {};
  return {{kDecayState, "None"}};
}

}  // namespace fathom
