#include "fathom/kernels/simd.h"

#include <fmt/ranges.h>
#include <hwy/targets.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "fathom/base/error.h"

namespace fathom {
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
  for (const Target& t : kTargets) {
    if (Usable() & t.bits) return t.name;
  }
  return "none";
}

bool HasNativeBF16() { return LiveSimdTarget() == "avx3_dl" && __builtin_cpu_supports("avx512bf16"); }

}  // namespace fathom
