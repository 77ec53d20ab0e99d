#include "fathom/machine/limits.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

void ExpectOrdered(const Rate& rate) {
  EXPECT_GT(rate.low, 0);
  EXPECT_LE(rate.low, rate.median);
  EXPECT_LE(rate.median, rate.high);
}

TEST(Limits, RatesAreOrdered) {
  ExpectOrdered(MeasureProducts(DType::kF32));
  ExpectOrdered(MeasureProducts(DType::kBF16));
  ExpectOrdered(MeasureMemoryRead());
  ExpectOrdered(MeasureVectorUnits(DType::kF32));
  if (HasPairInstruction()) ExpectOrdered(MeasureVectorUnits(DType::kBF16));
  EXPECT_GT(QuickProductRate(DType::kF32), 0);
}

TEST(Limits, DiskLeavesNothingBehind) {
  const TemporaryFolder folder;
  ExpectOrdered(MeasureDiskWrite(folder.path()));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Limits, DiskThatCannotBeWritten) {
  const TemporaryFolder folder;
  try {
    MeasureDiskWrite(folder.path() / "absent");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kResource);
  }
}

TEST(Limits, MachineHasMemoryAndAName) {
  EXPECT_GT(MemoryBytes(), int64_t{1} << 27);
  EXPECT_FALSE(CpuName().empty());
  EXPECT_GT(PeakResidentBytes(), 1 << 20);
  EXPECT_LT(PeakResidentBytes(), MemoryBytes());
}

}  // namespace
}  // namespace fathom
