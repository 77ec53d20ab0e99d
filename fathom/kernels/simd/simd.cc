#include "fathom/kernels/simd/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/simd/simd.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {
int64_t ThisTarget() { return HWY_TARGET; }
}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <fmt/ranges.h>
#include <hwy/targets.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "fathom/base/error.h"

namespace fathom {
HWY_EXPORT(ThisTarget);
namespace {

struct Target {
  const char* name;
  int64_t bits;
  dnnl::cpu_isa isa;
};
// The baseline is Highway's emulation of 128-bit vectors, or single lanes where the compiler is known to break that (GCC before 12.3).
constexpr Target kTargets[] = {
    {"avx3_dl", HWY_AVX3_DL, dnnl::cpu_isa::all},
    {"avx3", HWY_AVX3, dnnl::cpu_isa::avx512_core},
    {"avx2", HWY_AVX2, dnnl::cpu_isa::avx2},
    {"scalar", HWY_EMU128 | HWY_SCALAR, dnnl::cpu_isa::sse41},
};

// Asks the CPU anew each time, some ten microseconds.
int64_t Usable() { return hwy::SupportedTargets() & HWY_TARGETS; }

}  // namespace

std::vector<std::string> SimdTargets() {
  std::vector<std::string> names;
  for (const Target& t : kTargets) {
    if (Usable() & t.bits) names.push_back(t.name);
  }
  return names;
}

void PinSimdTarget(const std::string& name) {
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
  if (name.empty()) return;
  for (const Target& t : kTargets) {
    const int64_t bits = Usable() & t.bits;
    if (name != t.name || bits == 0) continue;
    hwy::SetSupportedTargetsForTest(bits);
    hwy::GetChosenTarget().Update(bits);
    dnnl::set_max_cpu_isa(t.isa);  // refused once oneDNN has run; then its own choice stays
    return;
  }
  Throw(ErrorCode::kUsage, "SIMD target {}: this CPU runs {}", name, fmt::join(SimdTargets(), ", "));
}

std::string LiveSimdTarget() {
  const int64_t live = HWY_DYNAMIC_DISPATCH(ThisTarget)();
  for (const Target& t : kTargets) {
    if (live & t.bits) return t.name;
  }
  return "none";
}

bool HasPairInstruction() { return HWY_DYNAMIC_DISPATCH(ThisTarget)() == HWY_AVX3_DL && __builtin_cpu_supports("avx512bf16"); }

bool HasNativeBF16() { return HasPairInstruction() && !__builtin_cpu_is("intel"); }

bool HasMatrixUnit() {
  return HWY_DYNAMIC_DISPATCH(ThisTarget)() == HWY_AVX3_DL && dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core_amx;
}

}  // namespace fathom
#endif  // HWY_ONCE
