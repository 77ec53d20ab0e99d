#include "fathom/kernels/attention/mla_decode.h"

#include <gtest/gtest.h>

#include <complex>
#include <numeric>

#include "fathom/base/threads.h"
#include "fathom/kernels/attention/mla_decode_plan.h"
#include "fathom/kernels/attention/mla_decode_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/close.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
using Rows = std::vector<std::vector<int32_t>>;

struct Case {
  MlaDecodeShape shape;
  std::vector<int64_t> visible;
  int64_t cache_rows;
};
std::vector<Case> Cases() {
  return {
      {{1, 1, 1, 0.7f}, {1}, 1},
      {{3, 7, 2, 0.4f}, {5, 0, 9}, 9},
      {{4, 32, 16, 0.2f}, {63, 64, 65, 200}, 210},
      {{16, 512, 64, 0.07f}, {1100}, 1101},
      {{2, 40, 8, 0.2f}, {20000}, 20000},
  };
}

struct Data {
  std::vector<double> q_latent, q_rope, cache;
};
Data MakeData(const Case& c, bool bf16) {
  const MlaDecodeShape& s = c.shape;
  const int64_t m = std::ssize(c.visible);
  Data d{RandomVector(m * s.heads * s.latent_dim, 1), RandomVector(m * s.heads * s.rope_dim, 2),
         RandomVector(c.cache_rows * (s.latent_dim + s.rope_dim), 3)};
  for (double& x : d.cache) x = bf16 ? RoundToBF16(static_cast<float>(x)) : static_cast<float>(x);
  for (auto* v : {&d.q_latent, &d.q_rope}) {
    for (double& x : *v) x = bf16 ? RoundToBF16(static_cast<float>(x)) : static_cast<float>(x);
  }
  return d;
}

// Rows of the cache that no query reads are NaN.
template <class T>
std::vector<float> RunDecode(const Case& c, const Data& d, const Rows& rows, std::span<const int32_t> chosen, int64_t k,
                             std::vector<float>* top = nullptr, bool whole = false) {
  const MlaDecodeShape& s = c.shape;
  const int64_t width = s.latent_dim + s.rope_dim, m = std::ssize(c.visible);
  std::vector<T> cache(static_cast<size_t>(c.cache_rows * (width + 5)), FromFloat<T>(kNaN));
  for (const auto& list : rows) {
    for (const int32_t r : list) {
      for (int64_t i = 0; i < width; ++i)
        cache[static_cast<size_t>(r * (width + 5) + i)] = FromFloat<T>(static_cast<float>(d.cache[static_cast<size_t>(r * width + i)]));
    }
  }
  const auto q_latent = ToFloats(d.q_latent), q_rope = ToFloats(d.q_rope);
  std::vector<float> o(q_latent.size(), kNaN);
  const std::span<const float> latent_span(q_latent), rope_span(q_rope);
  Arena scratch = DirtyArena(int64_t{256} << 20);
  MlaDecode(s,
            {.q_latent = ViewOf(latent_span.data(), {m, s.heads * s.latent_dim}),
             .q_rope = ViewOf(rope_span.data(), {m, s.heads * s.rope_dim}),
             .cache = ViewOf(cache.data(), {c.cache_rows, width}, width + 5),
             .visible = c.visible,
             .chosen = chosen,
             .k = k,
             .whole = whole},
            ViewOf(o.data(), {m, s.heads * s.latent_dim}), {}, scratch, top == nullptr ? View() : ViewOf(top->data(), {m, s.heads}));
  return o;
}

Rows FirstRows(std::span<const int64_t> visible) {
  Rows rows;
  for (const int64_t n : visible) {
    rows.emplace_back(static_cast<size_t>(n));
    std::iota(rows.back().begin(), rows.back().end(), 0);
  }
  return rows;
}

TEST(MlaDecode, MatchesReferenceOnEveryTarget) {
  for (const Case& c : Cases()) {
    const Rows rows = FirstRows(c.visible);
    for (const bool bf16 : {false, true}) {
      const Data d = MakeData(c, bf16);
      const auto want = ref::MlaDecode(c.shape, d.q_latent, d.q_rope, d.cache, rows);
      ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
        for (const bool whole : {false, true}) {
          const auto got = bf16 ? RunDecode<BF16>(c, d, rows, {}, 0, nullptr, whole) : RunDecode<float>(c, d, rows, {}, 0, nullptr, whole);
          EXPECT_TRUE(RelativeL2(got, want, bf16 ? 6e-3 : 2e-6));
        }
      });
    }
  }
}

TEST(MlaDecode, ChosenRowsAreGathered) {
  const Case c{{4, 32, 16, 0.2f}, {0, 0, 0}, 300};
  const Data d = MakeData(c, false);
  Rows rows(3);
  for (int32_t i = 0; i < 80; ++i) rows[0].push_back(i * 3 + 1);
  rows[1] = {7};
  std::vector<int32_t> chosen(3 * 80, -1);
  for (size_t m = 0; m < 3; ++m) std::copy(rows[m].begin(), rows[m].end(), chosen.begin() + static_cast<int64_t>(m) * 80);
  const auto want = ref::MlaDecode(c.shape, d.q_latent, d.q_rope, d.cache, rows);
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    for (const bool whole : {false, true}) EXPECT_TRUE(RelativeL2(RunDecode<float>(c, d, rows, chosen, 80, nullptr, whole), want, 2e-6));
  });
}

// Over parts of long caches, too; -infinity where nothing is seen.
TEST(MlaDecode, SaysTheLargestScores) {
  for (const Case& c : Cases()) {
    const MlaDecodeShape& s = c.shape;
    const Data d = MakeData(c, false);
    std::vector<float> top(c.visible.size() * static_cast<size_t>(s.heads), kNaN), of_whole = top;
    RunDecode<float>(c, d, FirstRows(c.visible), {}, 0, &top);
    RunDecode<float>(c, d, FirstRows(c.visible), {}, 0, &of_whole, true);
    EXPECT_TRUE(SameBits(of_whole, top));
    for (int64_t row = 0; row < std::ssize(top); ++row) {
      double want = -std::numeric_limits<double>::infinity();
      for (int64_t key = 0; key < c.visible[static_cast<size_t>(row / s.heads)]; ++key) {
        const double* k = d.cache.data() + key * (s.latent_dim + s.rope_dim);
        const double latent = std::inner_product(k, k + s.latent_dim, d.q_latent.data() + row * s.latent_dim, 0.0);
        want = std::max(want, s.scale * std::inner_product(k + s.latent_dim, k + s.latent_dim + s.rope_dim,
                                                           d.q_rope.data() + row * s.rope_dim, latent));
      }
      if (std::isinf(want)) {
        EXPECT_EQ(top[static_cast<size_t>(row)], want);
      } else {
        EXPECT_NEAR(top[static_cast<size_t>(row)], want, 3e-6 * (1 + std::fabs(want)));
      }
    }
  }
}

TEST(MlaDecode, AllRowsChosenHaveTheBitsOfDense) {
  const Case c{{4, 32, 16, 0.2f}, {1300, 65}, 1300};
  const Data d = MakeData(c, false);
  const Rows rows = FirstRows(c.visible);
  std::vector<int32_t> chosen(2 * 1400, -1);
  for (size_t m = 0; m < 2; ++m) std::copy(rows[m].begin(), rows[m].end(), chosen.begin() + static_cast<int64_t>(m) * 1400);
  EXPECT_TRUE(SameBits(RunDecode<float>(c, d, rows, chosen, 1400), RunDecode<float>(c, d, rows, {}, 0)));
}

// Many threads share strips of rows and ranges of latents, of blocks of heads that are not full.
TEST(MlaDecode, SameBitsForAnyNumberOfThreads) {
  const Case c{{20, 100, 16, 0.2f}, {1300, 65, 0}, 1300};
  const Rows rows = FirstRows(c.visible);
  EXPECT_TRUE(IsBetterInStrips(20, DecodeParts(1300) + DecodeParts(65), kManyThreads));
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    ExpectSameForAnyThreads([&] { return RunDecode<float>(c, MakeData(c, false), rows, {}, 0); });
    ExpectSameForAnyThreads([&] { return RunDecode<BF16>(c, MakeData(c, true), rows, {}, 0); });
  });
  ExpectSameForAnyThreads([&] { return RunDecode<float>(c, MakeData(c, false), rows, {}, 0, nullptr, true); });
}

// Rows of sequences scattered over the blocks of one cache: a sequence's blocks stand apart and in falling order. What no sequence holds,
// and the gap behind each row, is NaN.
template <class T>
struct BlockCache {
  static constexpr int64_t kGap = 3;
  BlockCache(std::span<const int64_t> lengths, std::span<const double> rows, int64_t columns) : width(columns) {
    int64_t used = 0, first = 0;
    for (const int64_t n : lengths) used += (n + kCacheBlock - 1) / kCacheBlock;
    values.assign(static_cast<size_t>(2 * used * kCacheBlock * (width + kGap)), FromFloat<T>(kNaN));
    for (const int64_t n : lengths) {
      tables.emplace_back();
      for (int64_t i = 0; i < n; ++i) {
        if (i % kCacheBlock == 0) tables.back().push_back(static_cast<int32_t>(2 * --used + 1));
        const int64_t at = (tables.back().back() * kCacheBlock + i % kCacheBlock) * (width + kGap);
        for (int64_t j = 0; j < width; ++j)
          values[static_cast<size_t>(at + j)] = FromFloat<T>(static_cast<float>(rows[static_cast<size_t>((first + i) * width + j)]));
      }
      first += n;
    }
    for (const auto& table : tables) views.emplace_back(table);
  }
  ConstView view() const { return ViewOf(values.data(), {std::ssize(values) / (width + kGap), width}, width + kGap); }
  int64_t width;
  std::vector<T> values;
  std::vector<std::vector<int32_t>> tables;
  std::vector<BlockTable> views;
};

// Each query has a sequence of its own, of `visible` rows; those of all stand in d.cache one behind the other.
template <class T>
std::vector<float> RunBlocks(const Case& c, const Data& d, std::span<const int32_t> chosen, int64_t k) {
  const int64_t m = std::ssize(c.visible), latents = c.shape.heads * c.shape.latent_dim;
  const BlockCache<T> cache(c.visible, d.cache, c.shape.latent_dim + c.shape.rope_dim);
  const auto q_latent = ToFloats(d.q_latent), q_rope = ToFloats(d.q_rope);
  std::vector<float> o(q_latent.size(), kNaN);
  Arena scratch = DirtyArena(int64_t{256} << 20);
  MlaDecode(c.shape,
            {ViewOf(q_latent.data(), {m, latents}), ViewOf(q_rope.data(), {m, c.shape.heads * c.shape.rope_dim}), cache.view(), c.visible,
             chosen, k, cache.views},
            ViewOf(o.data(), {m, latents}), {}, scratch);
  return o;
}

// Where sequence m's first row stands in d.cache.
int64_t FirstRow(const Case& c, size_t m) {
  return std::accumulate(c.visible.begin(), c.visible.begin() + static_cast<int64_t>(m), int64_t{0});
}

TEST(MlaDecode, ReadsSequencesThroughTheirBlocks) {
  for (const Case& c :
       {Case{{3, 7, 2, 0.4f}, {5, 64, 65, 1}, 135}, {{16, 512, 64, 0.07f}, {700, 63}, 763}, {{70, 16, 8, 0.2f}, {190, 129}, 319}}) {
    Rows rows = FirstRows(c.visible);
    for (size_t m = 0; m < rows.size(); ++m) {
      for (int32_t& r : rows[m]) r += static_cast<int32_t>(FirstRow(c, m));
    }
    for (const bool bf16 : {false, true}) {
      const Data d = MakeData(c, bf16);
      const auto want = ref::MlaDecode(c.shape, d.q_latent, d.q_rope, d.cache, rows);
      ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
        EXPECT_TRUE(RelativeL2(bf16 ? RunBlocks<BF16>(c, d, {}, 0) : RunBlocks<float>(c, d, {}, 0), want, bf16 ? 6e-3 : 2e-6));
      });
    }
  }
}

// Chosen rows count from the sequence's first; the bits are those of the same rows in one piece.
TEST(MlaDecode, ChosenRowsAreFoundInBlocks) {
  const Case c{{4, 32, 16, 0.2f}, {200, 90, 64}, 354};
  const int64_t k = 70;
  std::vector<int32_t> in_sequence(static_cast<size_t>(3 * k), -1), in_cache = in_sequence;
  Rows rows(3);
  for (size_t m = 0; m < 3; ++m) {
    for (int32_t r = static_cast<int32_t>(m); r < c.visible[m] && std::ssize(rows[m]) < k; r += 2) {
      const size_t at = m * static_cast<size_t>(k) + rows[m].size();
      in_sequence[at] = r;
      in_cache[at] = r + static_cast<int32_t>(FirstRow(c, m));
      rows[m].push_back(in_cache[at]);
    }
  }
  for (const bool bf16 : {false, true}) {
    const Data d = MakeData(c, bf16);
    const auto want = ref::MlaDecode(c.shape, d.q_latent, d.q_rope, d.cache, rows);
    Case plain = c;
    plain.visible.assign(3, 0);
    ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
      const auto got = bf16 ? RunBlocks<BF16>(c, d, in_sequence, k) : RunBlocks<float>(c, d, in_sequence, k);
      EXPECT_TRUE(RelativeL2(got, want, bf16 ? 6e-3 : 2e-6));
      EXPECT_TRUE(SameBits(got, bf16 ? RunDecode<BF16>(plain, d, rows, in_cache, k) : RunDecode<float>(plain, d, rows, in_cache, k)));
    });
  }
}

// Queries with their own lists of rows, ended by -1; no query attends to rows beyond `keys`.
struct BackwardCase {
  MlaDecodeShape shape;
  int64_t queries, k, keys;
};

std::vector<int32_t> SomeChoice(const BackwardCase& c, Rows& rows) {
  std::vector<int32_t> chosen(static_cast<size_t>(c.queries * c.k), -1);
  for (int64_t m = 0; m < c.queries; ++m) {
    rows.emplace_back();
    const int64_t n = m == 1 ? 0 : std::min(c.k, 1 + m * 7);  // one query sees nothing
    for (int64_t i = 0; i < n; ++i) {
      rows.back().push_back(static_cast<int32_t>(c.keys * i / n));
      chosen[static_cast<size_t>(m * c.k + i)] = rows.back().back();
    }
  }
  return chosen;
}

// d (d_o . o) / d x_i for some entries of one of the inputs, by the reference's complex step.
std::vector<double> ComplexStep(const BackwardCase& c, const Data& d, const Rows& rows, const std::vector<double>& d_o, int input,
                                size_t stride) {
  using Complex = std::complex<double>;
  std::vector<Complex> x[3] = {
      {d.q_latent.begin(), d.q_latent.end()}, {d.q_rope.begin(), d.q_rope.end()}, {d.cache.begin(), d.cache.end()}};
  std::vector<double> gradient;
  for (size_t i = 0; i < x[input].size(); i += stride) {
    x[input][i] += Complex(0, 1e-30);
    const auto o = ref::MlaDecode(c.shape, x[0], x[1], x[2], rows);
    x[input][i] = x[input][i].real();
    double sum = 0;
    for (size_t j = 0; j < o.size(); ++j) sum += d_o[j] * o[j].imag();
    gradient.push_back(sum / 1e-30);
  }
  return gradient;
}

std::vector<float> Every(const std::vector<float>& x, size_t stride) {
  std::vector<float> some;
  for (size_t i = 0; i < x.size(); i += stride) some.push_back(x[i]);
  return some;
}

struct Gradients {
  std::vector<float> o, dq_latent, dq_rope, d_cache;
};

template <class T>
Gradients RunBackward(const BackwardCase& c, const Data& d, std::span<const int32_t> chosen, const std::vector<double>& d_o) {
  const MlaDecodeShape& s = c.shape;
  const int64_t width = s.latent_dim + s.rope_dim, latents = s.heads * s.latent_dim, ropes = s.heads * s.rope_dim, m = c.queries;
  std::vector<T> cache;
  for (const double x : d.cache) cache.push_back(FromFloat<T>(static_cast<float>(x)));
  const auto q_latent = ToFloats(d.q_latent), q_rope = ToFloats(d.q_rope), d_o_f32 = ToFloats(d_o);
  std::vector<float> o(q_latent.size(), kNaN), lse(static_cast<size_t>(m * s.heads), kNaN), dot(lse.size());
  Arena scratch = DirtyArena(int64_t{64} << 20);
  const ConstView ql = ViewOf(q_latent.data(), {m, latents}), qr = ViewOf(q_rope.data(), {m, ropes});
  const ConstView rows = ViewOf(std::as_const(cache).data(), {c.keys, width});
  const MlaDecodeInputs in{.q_latent = ql, .q_rope = qr, .cache = rows, .visible = {}, .chosen = chosen, .k = c.k};
  MlaDecode(s, in, ViewOf(o.data(), {m, latents}), ViewOf(lse.data(), {m, s.heads}), scratch);
  for (size_t i = 0; i < o.size(); ++i) dot[i / static_cast<size_t>(s.latent_dim)] += o[i] * d_o_f32[i];
  Gradients g{std::vector<float>(o.size(), kNaN), std::vector<float>(o.size(), kNaN), std::vector<float>(q_rope.size(), kNaN),
              std::vector<float>(cache.size(), 0.5f)};
  MlaDecodeBackward(s, in,
                    {ViewOf(std::as_const(lse).data(), {m, s.heads}), ViewOf(std::as_const(dot).data(), {m, s.heads}),
                     ViewOf(d_o_f32.data(), {m, latents})},
                    {ViewOf(g.o.data(), {m, latents}), ViewOf(g.dq_latent.data(), {m, latents}), ViewOf(g.dq_rope.data(), {m, ropes}),
                     ViewOf(g.d_cache.data(), {c.keys, width})},
                    scratch);
  EXPECT_TRUE(RelativeL2(g.o, ToDoubles(o), sizeof(T) == 4 ? 2e-6 : 1e-2));
  for (float& x : g.d_cache) x -= 0.5f;  // it is added to
  return g;
}

TEST(MlaDecodeBackward, IsTheReferencesComplexStep) {
  for (const BackwardCase& c : {BackwardCase{{1, 1, 1, 0.7f}, 1, 3, 4},
                                {{3, 7, 2, 0.4f}, 5, 9, 20},
                                {{5, 33, 6, 0.3f}, 19, 70, 150},
                                {{70, 12, 5, 0.3f}, 3, 66, 90}}) {
    for (const bool bf16 : {false, true}) {
      const Data d = MakeData({c.shape, std::vector<int64_t>(static_cast<size_t>(c.queries)), c.keys}, bf16);
      Rows rows;
      const auto chosen = SomeChoice(c, rows);
      const auto d_o = RandomVector(std::ssize(d.q_latent), 7);
      const size_t stride = 1 + d.cache.size() / 60;
      const auto dql = ComplexStep(c, d, rows, d_o, 0, stride), dqr = ComplexStep(c, d, rows, d_o, 1, 3),
                 dc = ComplexStep(c, d, rows, d_o, 2, stride);
      ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
        const Gradients g = bf16 ? RunBackward<BF16>(c, d, chosen, d_o) : RunBackward<float>(c, d, chosen, d_o);
        const double tolerance = bf16 ? 2e-2 : 1e-5;
        EXPECT_TRUE(RelativeL2(Every(g.dq_latent, stride), dql, tolerance));
        EXPECT_TRUE(RelativeL2(Every(g.dq_rope, 3), dqr, tolerance));
        EXPECT_TRUE(RelativeL2(Every(g.d_cache, stride), dc, tolerance));
      });
    }
  }
}

TEST(MlaDecodeBackward, SameBitsForAnyNumberOfThreads) {
  const BackwardCase c{{5, 33, 6, 0.3f}, 19, 70, 150};
  const Data d = MakeData({c.shape, std::vector<int64_t>(19), c.keys}, false);
  Rows rows;
  const auto chosen = SomeChoice(c, rows);
  const auto d_o = RandomVector(std::ssize(d.q_latent), 7);
  SetThreads(1);
  const Gradients want = RunBackward<float>(c, d, chosen, d_o);
  for (const int threads : {2, 3}) {
    SetThreads(threads);
    const Gradients g = RunBackward<float>(c, d, chosen, d_o);
    EXPECT_TRUE(SameBits(g.d_cache, want.d_cache) && SameBits(g.dq_latent, want.dq_latent) && SameBits(g.dq_rope, want.dq_rope));
  }
  SetThreads(0);
}

}  // namespace
}  // namespace fathom
