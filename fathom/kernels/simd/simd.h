// Which SIMD code runs. Every kernel is compiled for several targets and picks one at run time.
#pragma once

#include <string>
#include <vector>

namespace fathom {

// Targets that this CPU can run, best first: "avx3_dl", "avx3", "avx2", "scalar".
std::vector<std::string> SimdTargets();

// Pins kernels (and oneDNN) to one target; "" takes the best one. Throws Error(kUsage) with the list if it can't run here.
// FATHOM_SIMD sets it for the program. Call before the first kernel.
void PinSimdTarget(const std::string& name);

// The target that kernels use now.
std::string LiveSimdTarget();

// vdpbf16ps is there and not excluded by the pinned target.
bool HasPairInstruction();

// It is there and faster than converting to f32: on Intel's CPUs it has half the rate of f32 (docs/performance.md).
bool HasNativeBF16();

// oneDNN multiplies BF16 with the CPU's matrix unit (AMX).
bool HasMatrixUnit();

}  // namespace fathom
