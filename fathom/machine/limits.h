// What this machine can do, measured: the yardstick of every speed that is reported.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "fathom/tensor/dtype.h"

namespace fathom {

// Several runs of one measurement, 1e9 per second: GFLOP/s (a multiply-add counts as two) or GB/s.
struct Rate {
  double median = 0, low = 0, high = 0;
};
// Of one or more values, in any order.
Rate RateOf(std::vector<double> values);

// The vector units of all threads on registers alone, F32 or (where HasPairInstruction()) BF16: what no product can exceed without a matrix
// unit.
Rate MeasureVectorUnits(DType dtype);

// Large matrix products of this dtype on all threads, by our own kernels or by oneDNN (packed and plain operands), whichever is faster.
Rate MeasureProducts(DType dtype);

// Our own product of one size, the best of a few: takes some hundredths of a second, for a run that has better things to do.
double QuickProductRate(DType dtype);

// All threads together read memory far larger than any cache.
Rate MeasureMemoryRead();

// A file is written in dir and synced. It has no name while it exists, so nothing is left behind. Throws Error(kResource): dir can't be
// written, the disk is full.
Rate MeasureDiskWrite(const std::filesystem::path& dir);

// "AMD EPYC 9R14"; "unknown" where the system doesn't say.
std::string CpuName();

// Of main memory.
int64_t MemoryBytes();

// What this process has in memory now, without the pages that files back and the system may drop.
int64_t OwnMemoryBytes();

// The most that this process has had in memory at a time.
int64_t PeakResidentBytes();

}  // namespace fathom
