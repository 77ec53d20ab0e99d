#include "fathom/model/adapters.h"

#include <fmt/format.h>

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

std::string NameOf(const ParamSpec& param, Factor factor) {
  return fmt::format("{}.lora_{}.weight", ModuleOf(param), factor == Factor::kA ? 'A' : 'B');
}

Shape ShapeOf(const ParamSpec& param, Factor factor, int64_t rank) {
  if (factor == Factor::kA) return {rank, param.shape[1]};
  return {param.shape[0], rank};
}

namespace {

// The whole, or a copy of the region.
Tensor Part(Tensor whole, const Region& region) {
  if (region == WholeOf(whole.shape())) return whole;
  Tensor part(whole.dtype(), {region.rows(), region.columns()});
  Cast(PartOf(whole.view(), region), part.mutable_view());
  return part;
}

LowRank Part(LowRank whole, const ParamSpec& param, const Sharding& sharding) {
  const int64_t rank = whole.a.dim(0);
  whole.a = Part(std::move(whole.a), sharding.Computed(param, Factor::kA, rank));
  whole.b = Part(std::move(whole.b), sharding.Computed(param, Factor::kB, rank));
  return whole;
}

}  // namespace

void AttachFresh(const std::vector<const ParamSpec*>& modules, int64_t rank, double alpha, uint64_t seed, const Sharding& sharding,
                 DecoderParams& params) {
  for (const ParamSpec* param : modules) {
    if (!sharding.Holds(*param)) continue;
    const int64_t n = param->shape[0], k = param->shape[1];
    LowRank whole{Tensor(DType::kF32, {rank, k}), Tensor(DType::kF32, {n, rank}), alpha / static_cast<double>(rank)};
    FillTruncatedNormal(seed, HashName(ModuleOf(*param) + ".lora_A"), 1 / std::sqrt(3.0 * static_cast<double>(k)), whole.a.mutable_view());
    params[*param].adapter = std::make_shared<LowRank>(Part(std::move(whole), *param, sharding));
  }
}

void Attach(PeftAdapter adapter, const Sharding& sharding, DecoderParams& params) {
  for (auto& [module, low_rank] : adapter.modules) {
    const ParamSpec* param = params.spec->Find(module + ".weight");
    FATHOM_CHECK(param != nullptr, "{}", module);
    if (sharding.Holds(*param)) params[*param].adapter = std::make_shared<LowRank>(Part(std::move(low_rank), *param, sharding));
  }
}

void AttachForInference(const std::filesystem::path& dir, const Sharding& sharding, DecoderParams& params) {
  Attach(ReadPeftAdapter(dir, *params.spec), sharding, params);
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
