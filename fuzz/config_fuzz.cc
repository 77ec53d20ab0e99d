// config.json of any content: an Error, or a config whose tensors can be listed and which survives being written and read again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/checkpoint/hub/validate.h"

namespace {

using namespace fathom;

constexpr int64_t kListed = 1000;  // layers times experts: longer lists only take time

void Use(const ModelConfig& config) {
  const ModelConfig again = ParseModelConfig(ModelConfigToJson(config), "again");
  if (ModelConfigToJson(again) != ModelConfigToJson(config)) std::abort();
  if ((config.num_hidden_layers + config.num_nextn_predict_layers) * (config.n_routed_experts + 1) > kListed) return;
  const ParameterCounts counts = CountParameters(config);
  if (counts.total <= 0 || counts.active <= 0 || counts.active > counts.total) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    Use(ParseModelConfig(ParseJson({reinterpret_cast<const char*>(data), size}, "config.json"), "config.json"));
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kInput) std::abort();
  }
  return 0;
}
