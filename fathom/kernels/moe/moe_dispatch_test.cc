#include "fathom/kernels/moe/moe_dispatch.h"

#include "fathom/kernels/moe/moe_dispatch_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr int64_t kTokens = 37, kChosen = 3, kExperts = 8;

// Random experts; every seventh assignment dropped, expert 5 never chosen.
std::vector<int32_t> Ids() {
  const CounterRng rng(1, 2);
  std::vector<int32_t> ids;
  for (uint64_t i = 0; i < kTokens * kChosen; ++i) {
    const auto e = static_cast<int32_t>(rng.Below(i, kExperts));
    ids.push_back(i % 7 == 6 ? -1 : e == 5 ? 0 : e);
  }
  return ids;
}

DispatchRef Build(const std::vector<int32_t>& ids) {
  DispatchRef d{std::vector<int64_t>(kExperts + 1), std::vector<int32_t>(ids.size(), -9), std::vector<int32_t>(ids.size(), -9),
                std::vector<int32_t>(ids.size(), -9)};
  BuildDispatch(ids, kChosen, kExperts, d.begin, d.row_token, d.row_slot, d.slot_row);
  return d;
}

TEST(MoeDispatch, SortsByExpertStably) {
  const auto ids = Ids();
  DispatchRef got = Build(ids);
  const DispatchRef want = BuildDispatchRef(ids, kChosen, kExperts);
  EXPECT_EQ(got.begin, want.begin);
  EXPECT_EQ(got.slot_row, want.slot_row);
  got.row_slot.resize(want.row_slot.size());
  got.row_token.resize(want.row_token.size());
  EXPECT_EQ(got.row_slot, want.row_slot);
  EXPECT_EQ(got.row_token, want.row_token);
}

TEST(MoeDispatch, CapacityDropsTheLateOnes) {
  EXPECT_EQ(ExpertCapacity(24, 2, 8, 1.0), 6);
  EXPECT_EQ(ExpertCapacity(24, 2, 8, 1.25), 7);
  EXPECT_EQ(ExpertCapacity(25, 2, 8, 1.0), 7);
  EXPECT_EQ(ExpertCapacity(1, 1, 8, 3.5), 3);
  std::vector<int32_t> ids = {0, 1, 0, 2, 0, 1, 1, 0};
  std::vector<int64_t> work(3);
  EXPECT_EQ(DropOverCapacity(2, ids, work), 3);
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 1, 0, 2, -1, 1, -1, -1}));
}

template <class X, class R>
void CheckGather(int64_t d, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << d << " gap " << gap << " shift " << shift);
  const DispatchRef dispatch = BuildDispatchRef(Ids(), kChosen, kExperts);
  PaddedMatrix<X> x(kTokens, d, gap, shift, RandomVector(kTokens * d, 1));
  PaddedMatrix<R> rows(std::ssize(dispatch.row_token), d, gap, 1);
  GatherRows(x.view(), dispatch.row_token, rows.view());
  EXPECT_TRUE(Close(rows.Floats(), GatherRowsRef(x.Values(), d, dispatch.row_token), 0, sizeof(R) < sizeof(X) ? 0.005 : 0));
  EXPECT_TRUE(rows.PaddingUntouched());
}

template <class R>
void CheckCombine(int64_t d, int64_t gap, int64_t shift, bool add) {
  SCOPED_TRACE(testing::Message() << d << " gap " << gap << " shift " << shift << " add " << add);
  const DispatchRef dispatch = BuildDispatchRef(Ids(), kChosen, kExperts);
  const int64_t n = dispatch.begin.back();
  PaddedMatrix<R> rows(n, d, gap, shift, RandomVector(n * d, 1));
  PaddedMatrix<float> out(kTokens, d, gap, 1, RandomVector(kTokens * d, 2));
  std::vector<double> want = add ? out.Values() : std::vector<double>(static_cast<size_t>(kTokens * d));
  CombineRowsRef(rows.Values(), d, dispatch.slot_row, kChosen, want);
  CombineRows(rows.view(), dispatch.slot_row, kChosen, out.view(), add);
  EXPECT_TRUE(Close(out.Floats(), want, 1e-6, 1e-6));
  EXPECT_TRUE(out.PaddingUntouched());
}

TEST(MoeDispatch, GatherAndCombineEqualReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t d : {1, 3, 7, 8, 15, 16, 17, 33, 64, 512, 2048}) {
      CheckGather<float, float>(d, 0, 0);
      CheckGather<BF16, BF16>(d, 3, 1);
      CheckGather<float, BF16>(d, 1, 3);
      CheckGather<BF16, float>(d, 1, 3);
      CheckCombine<float>(d, 0, 0, false);
      CheckCombine<float>(d, 5, 1, true);
      CheckCombine<BF16>(d, 3, 3, true);
    }
  });
}

// The sum over slots is the transpose of the gather, so each is the other's backward.
TEST(MoeDispatch, CombineIsTheTransposeOfGather) {
  const int64_t d = 4;
  const DispatchRef dispatch = BuildDispatchRef(Ids(), kChosen, kExperts);
  const auto x = RandomVector(kTokens * d, 1), cotangent = RandomVector(dispatch.begin.back() * d, 2);
  std::vector<double> dx(x.size());
  CombineRowsRef(cotangent, d, dispatch.slot_row, kChosen, dx);
  const auto f = [&](const std::vector<std::complex<double>>& z) { return GatherRowsRef(z, d, dispatch.row_token); };
  EXPECT_TRUE(RelativeL2(dx, ComplexStepGradient(f, x, cotangent), 1e-12));
}

TEST(MoeDispatch, SlotsGoAndComeBack) {
  const DispatchRef dispatch = BuildDispatchRef(Ids(), kChosen, kExperts);
  const auto slots = ToFloats(RandomVector(kTokens * kChosen, 1));
  std::vector<float> rows(dispatch.row_slot.size()), back(slots.size(), 0.0f);
  GatherSlots(slots, dispatch.row_slot, rows);
  ScatterSlots(rows, dispatch.row_slot, back);
  for (size_t s = 0; s < slots.size(); ++s) EXPECT_EQ(back[s], dispatch.slot_row[s] < 0 ? 0.0f : slots[s]);
}

TEST(MoeDispatch, BitsDoNotDependOnThreads) {
  const int64_t d = 900;
  const DispatchRef dispatch = BuildDispatchRef(Ids(), kChosen, kExperts);
  const int64_t n = dispatch.begin.back();
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> rows(n, d, 0, 0, RandomVector(n * d, 1)), out(kTokens, d, 0, 0, RandomVector(kTokens * d, 2));
    CombineRows(rows.view(), dispatch.slot_row, kChosen, out.view(), true);
    GatherRows(out.view(), dispatch.row_token, rows.view());
    return rows.Floats();
  });
}

}  // namespace
}  // namespace fathom
