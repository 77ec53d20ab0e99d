#include "fathom/train/data_shares.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/model/load.h"
#include "fathom/model/tiny_config.h"
#include "fathom/parallel/test_threads.h"

namespace fathom {
namespace {

constexpr int kRanks = 3;  // which divides few of the sizes

// An element as rank r has it. Sums of three depend on their order.
float ValueOf(int r, int64_t i) {
  return std::sin(static_cast<float>(i + 1) * static_cast<float>(r + 1)) * std::pow(10.0f, static_cast<float>(r));
}

void FillAs(int r, View x) {
  for (int64_t i = 0; i < x.NumElements(); ++i) x.data<float>()[i] = ValueOf(r, i);
}

class RankState {
 public:
  explicit RankState(const Comm& world) : rank_(world.rank()), config_(TinyConfig(ModelFamily::kV3, 31)), spec_(config_) {
    MeshSizes sizes;
    sizes[static_cast<size_t>(Axis::kData)].ici = kRanks;
    options_.mesh = Mesh(world, sizes);
    options_.share_moments = true;
    options_.compute = DType::kBF16;
    placement_.emplace(spec_, config_, options_);
    for (DecoderParams* params : {&params_, &grads_}) *params = InitParams(config_, 5, DType::kF32, false);
    copies_ = InitParams(config_, 5, DType::kBF16, false);
    for (const NamedWeight& w : ListParams(grads_)) FillAs(rank_, w.weight->value.mutable_view());
    shares_.emplace(*placement_, params_, copies_, grads_);
  }

  // f(param, rank that updates the row, row) for every row of every parameter that is shared. Returns how many parameters are.
  template <class F>
  int ForEachRow(const F& f) {
    int shared = 0;
    for (const NamedWeight& w : ListParams(grads_)) {
      if (!placement_->SharesMoments(*w.spec)) continue;
      ++shared;
      for (int64_t row = 0, r = 0; row < w.spec->shape[0]; ++row) {
        while (row >= placement_->UpdatedBy(*w.spec, static_cast<int>(r)).row_end) ++r;
        f(*w.spec, static_cast<int>(r), row);
      }
    }
    return shared;
  }

  int rank_;
  ModelConfig config_;
  ModelSpec spec_;
  TrainOptions options_;
  std::optional<Placement> placement_;
  DecoderParams params_, copies_, grads_;
  std::optional<DataShares> shares_;
};

TEST(DataShares, ARanksRowsBecomeTheSumInTheOrderOfRanks) {
  RunRanks(kRanks, [](const Comm& world) {
    RankState state(world);
    ASSERT_FALSE(state.shares_->empty());
    state.shares_->SumGradients();
    int64_t mine = 0;
    const int shared = state.ForEachRow([&](const ParamSpec& param, int owner, int64_t row) {
      const int64_t columns = param.shape[1];
      mine += owner == state.rank_ ? 1 : 0;
      for (int64_t c = 0, i = row * columns; c < columns; ++c, ++i) {
        const float sum = (ValueOf(0, i) + ValueOf(1, i)) + ValueOf(2, i);
        ASSERT_EQ(state.grads_[param].value.data<float>()[i], owner == state.rank_ ? sum : ValueOf(state.rank_, i))
            << param.name << " row " << row << " of rank " << owner << " on rank " << state.rank_;
      }
    });
    EXPECT_GT(shared, 10);
    EXPECT_GT(mine, 0);
    const float* norm = state.grads_.norm.value.data<float>();  // no matrix: nobody's
    EXPECT_EQ(norm[3], ValueOf(state.rank_, 3));
  });
}

TEST(DataShares, EveryRankGetsTheRowsThatOthersHaveUpdated) {
  RunRanks(kRanks, [](const Comm& world) {
    RankState state(world);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    state.ForEachRow([&](const ParamSpec& param, int owner, int64_t row) {
      const int64_t columns = param.shape[1];
      for (int64_t i = row * columns; i < (row + 1) * columns; ++i)
        state.params_[param].value.mutable_data<float>()[i] = owner == state.rank_ ? ValueOf(owner, i) : nan;
    });
    state.shares_->GatherValues();
    state.ForEachRow([&](const ParamSpec& param, int owner, int64_t row) {
      const View value = state.params_[param].value.mutable_view().Rows(row, row + 1);
      Tensor rounded(DType::kBF16, {1, param.shape[1]});
      Cast(value, rounded.mutable_view());
      for (int64_t c = 0; c < param.shape[1]; ++c)
        ASSERT_EQ(value.data<float>()[c], ValueOf(owner, row * param.shape[1] + c)) << param.name;
      // The owner's copy is the optimizer's to write.
      if (owner == state.rank_ || !state.placement_->treatments().HasBF16Copy(param)) return;
      const View copy = state.copies_[param].value.mutable_view().Rows(row, row + 1);
      ASSERT_EQ(std::memcmp(copy.raw(), rounded.view().raw(), static_cast<size_t>(copy.NumBytes())), 0) << param.name << " row " << row;
    });
  });
}

}  // namespace
}  // namespace fathom
