#include "fathom/model/adapters.h"

#include <cmath>

#include "fathom/base/rng.h"
#include "fathom/kernels/elementwise/random_fill.h"
#include "fathom/layers/adapter.h"

namespace fathom {
namespace {

constexpr int64_t kScratchSpace = int64_t{16} << 30;  // address space; memory is taken where it is touched

}  // namespace

std::vector<NamedAdapter> ListAdapters(DecoderParams& params) {
  std::vector<NamedAdapter> list;
  for (const ParamSpec& param : *params.spec) {
    if (const auto& adapter = params[param].adapter) list.push_back({&param, adapter.get()});
  }
  return list;
}

void AttachFresh(const std::vector<const ParamSpec*>& modules, int64_t rank, double alpha, uint64_t seed, DecoderParams& params) {
  for (const ParamSpec* param : modules) {
    const int64_t n = param->shape[0], k = param->shape[1];
    auto adapter = std::make_shared<LowRank>(
        LowRank{Tensor(DType::kF32, {rank, k}), Tensor(DType::kF32, {n, rank}), alpha / static_cast<double>(rank)});
    FillTruncatedNormal(seed, HashName(ModuleOf(*param) + ".lora_A"), 1 / std::sqrt(3.0 * static_cast<double>(k)),
                        adapter->a.mutable_view());
    params[*param].adapter = std::move(adapter);
  }
}

void Attach(PeftAdapter adapter, DecoderParams& params) {
  for (auto& [module, low_rank] : adapter.modules) {
    const ParamSpec* param = params.spec->Find(module + ".weight");
    FATHOM_CHECK(param != nullptr, "{}", module);
    params[*param].adapter = std::make_shared<LowRank>(std::move(low_rank));
  }
}

void AttachForInference(const std::filesystem::path& dir, DecoderParams& params) {
  Attach(ReadPeftAdapter(dir, *params.spec), params);
  Arena saved(1 << 20), scratch(kScratchSpace);
  Ctx ctx{saved, scratch, DType::kF32};
  for (const NamedAdapter& named : ListAdapters(params)) {
    if (named.spec->role != ParamRole::kKvUp) continue;
    ArenaScope scope(scratch);
    Weight& w = params[*named.spec];
    Tensor merged(DType::kF32, w.value.shape());
    Cast(MergedWeight(ctx, w), merged.mutable_view());
    w = {.value = std::move(merged)};
  }
}

}  // namespace fathom
