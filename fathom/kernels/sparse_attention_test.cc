#include "fathom/kernels/sparse_attention.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "fathom/base/threads.h"
#include "fathom/kernels/simd.h"
#include "fathom/kernels/sparse_attention_ref.h"
#include "fathom/testing/close.h"

namespace fathom {
namespace {

using Inputs = ref::MlaInputs<double>;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Case {
  MlaShape shape;
  std::vector<Segment> segments;
  int64_t tokens, k;
};
Segment Same(int64_t begin, int64_t end) { return {begin, end, begin, end}; }
std::vector<Case> Cases() {
  return {
      {{1, 1, 1, 1, 0.7f}, {Same(0, 1)}, 1, 1},
      {{3, 5, 2, 7, 0.4f}, {Same(1, 2), Same(2, 7), Same(9, 30)}, 33, 6},  // two segments see at most k keys: dense
      {{2, 32, 16, 24, 0.2f}, {Same(0, 90), Same(90, 131)}, 131, 20},
      {{1, 128, 64, 128, 0.0722f}, {Same(0, 80)}, 80, 33},
      {{37, 3, 2, 3, 0.5f}, {Same(0, 9)}, 9, 4},  // more heads than groups that sum dk_rope
  };
}

// Any min(k, visible) of the keys that a query sees, rising.
std::vector<int32_t> Choose(const Case& c) {
  std::vector<int32_t> chosen(static_cast<size_t>(c.tokens * c.k), -1);
  const CounterRng rng(7, 7);
  const auto keys = ref::VisibleKeys(c.segments, c.tokens);
  for (size_t t = 0; t < keys.size(); ++t) {
    std::vector<int32_t> own = keys[t];
    for (size_t i = own.size(); i > static_cast<size_t>(c.k); --i) {
      own.erase(own.begin() + static_cast<int64_t>(rng.Below(t * 1000 + i, own.size())));
    }
    std::copy(own.begin(), own.end(), chosen.begin() + static_cast<int64_t>(t) * c.k);
  }
  return chosen;
}

struct Data {
  Inputs in;
  std::vector<double> d_o;
};
Data MakeData(const Case& c, bool bf16) {
  const MlaShape& s = c.shape;
  Data d{{RandomVector(c.tokens * s.heads * (s.nope_dim + s.rope_dim), 1), RandomVector(c.tokens * s.heads * (s.nope_dim + s.v_dim), 2),
          RandomVector(c.tokens * s.rope_dim, 3)},
         RandomVector(c.tokens * s.heads * s.v_dim, 4)};
  for (auto* v : {&d.in.q, &d.in.kv, &d.in.k_rope, &d.d_o}) {
    for (double& x : *v) x = bf16 ? RoundToBF16(static_cast<float>(x)) : static_cast<float>(x);
  }
  return d;
}

// [rows, columns], NaN in the columns beside them and in rows outside the segments.
template <class T>
struct Matrix {
  Matrix(int64_t r, int64_t c) : rows(r), columns(c), data(static_cast<size_t>(r * (c + 1)), FromFloat<T>(kNaN)) {}
  Matrix(std::span<const double> from, const Case& c) : Matrix(c.tokens, std::ssize(from) / c.tokens) {
    for (const Segment& s : c.segments) {
      for (int64_t i = s.q_begin * columns; i < s.q_end * columns; ++i) At(i) = FromFloat<T>(static_cast<float>(from[static_cast<size_t>(i)]));
    }
  }
  T& At(int64_t i) { return data[static_cast<size_t>(i / columns * (columns + 1) + i % columns)]; }
  View view() { return ViewOf(data.data(), {rows, columns}, columns + 1); }
  std::vector<float> Values() {
    std::vector<float> out;
    for (int64_t i = 0; i < rows * columns; ++i) out.push_back(ToFloat(At(i)));
    return out;
  }
  int64_t rows, columns;
  std::vector<T> data;
};

struct Results {
  std::vector<float> o, lse, dq, dkv, dk_rope;
};
template <class T>
Results RunKernels(const Case& c, const Data& d, std::span<const int32_t> chosen, bool dense = false) {
  const MlaShape& s = c.shape;
  Matrix<T> q(d.in.q, c), kv(d.in.kv, c), k_rope(d.in.k_rope, c), d_o(d.d_o, c), o(c.tokens, s.heads * s.v_dim);
  Matrix<T> dq(c.tokens, q.columns), dkv(c.tokens, kv.columns), dk_rope(c.tokens, s.rope_dim);
  Matrix<float> lse(c.tokens, s.heads);
  Arena scratch(SparseAttentionScratchBytes(s, c.tokens, c.k));
  if (dense) {
    MlaAttentionForward(s, c.segments, q.view(), kv.view(), k_rope.view(), o.view(), lse.view(), scratch);
    MlaAttentionBackward(s, c.segments, q.view(), kv.view(), k_rope.view(), o.view(), lse.view(), d_o.view(), dq.view(), dkv.view(), dk_rope.view(), scratch);
  } else {
    SparseAttentionForward(s, c.segments, chosen, c.k, q.view(), kv.view(), k_rope.view(), o.view(), lse.view(), scratch);
    SparseAttentionBackward(s, c.segments, chosen, c.k, q.view(), kv.view(), k_rope.view(), o.view(), lse.view(), d_o.view(), dq.view(), dkv.view(),
                            dk_rope.view(), scratch);
  }
  return {o.Values(), lse.Values(), dq.Values(), dkv.Values(), dk_rope.Values()};
}

// Rows outside the segments are not written by the forward pass.
std::vector<float> Inside(const Case& c, std::vector<float> x) {
  const int64_t columns = std::ssize(x) / c.tokens;
  std::vector<float> out(x.size());
  for (const Segment& s : c.segments) std::copy(x.begin() + s.q_begin * columns, x.begin() + s.q_end * columns, out.begin() + s.q_begin * columns);
  return out;
}

void ExpectMatchesReference(const Case& c, const Data& d, std::span<const int32_t> chosen, const Results& r, double bound) {
  const auto keys = ref::ChosenKeys(chosen, c.k);
  const auto want = ref::MlaForward(c.shape, keys, d.in);
  EXPECT_TRUE(RelativeL2(Inside(c, r.o), want.o, bound));
  EXPECT_TRUE(Close(Inside(c, r.lse), want.lse, 2e-6, 2e-6));
  const Inputs gradient = ref::MlaBackward(c.shape, keys, d.in, d.d_o);
  EXPECT_TRUE(RelativeL2(r.dq, gradient.q, bound));
  EXPECT_TRUE(RelativeL2(r.dkv, gradient.kv, bound));
  EXPECT_TRUE(RelativeL2(r.dk_rope, gradient.k_rope, bound));
}

TEST(SparseAttention, ReferenceBackwardIsComplexStepDerivative) {
  using C = std::complex<double>;
  const Case c{{2, 3, 2, 3, 0.4f}, {Same(0, 6)}, 6, 3};
  const Data d = MakeData(c, false);
  const auto keys = ref::ChosenKeys(Choose(c), c.k);
  const ComplexFunction f = [&](const std::vector<C>& kv) {
    return ref::MlaForward(c.shape, keys, ref::MlaInputs<C>{{d.in.q.begin(), d.in.q.end()}, kv, {d.in.k_rope.begin(), d.in.k_rope.end()}}).o;
  };
  EXPECT_TRUE(RelativeL2(ref::MlaBackward(c.shape, keys, d.in, d.d_o).kv, ComplexStepGradient(f, d.in.kv, d.d_o), 1e-12));
}

TEST(SparseAttention, MatchesReferenceOnEveryTarget) {
  for (const Case& c : Cases()) {
    const std::vector<int32_t> chosen = Choose(c);
    for (const bool bf16 : {false, true}) {
      const Data d = MakeData(c, bf16);
      ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
        ExpectMatchesReference(c, d, chosen, bf16 ? RunKernels<BF16>(c, d, chosen) : RunKernels<float>(c, d, chosen), bf16 ? 6e-3 : 2e-6);
      });
    }
  }
}

template <class T>
void ExpectBitsOfDense(const Case& c) {
  const Data d = MakeData(c, false);
  const Results sparse = RunKernels<T>(c, d, Choose(c)), dense = RunKernels<T>(c, d, {}, true);
  EXPECT_TRUE(SameBits(sparse.o, dense.o));
  EXPECT_TRUE(SameBits(sparse.lse, dense.lse));
  EXPECT_TRUE(SameBits(sparse.dq, dense.dq));
  EXPECT_TRUE(SameBits(sparse.dkv, dense.dkv));
  EXPECT_TRUE(SameBits(sparse.dk_rope, dense.dk_rope));
}

TEST(SparseAttention, ChoosingAllHasTheBitsOfDense) {
  const Case c{{2, 32, 16, 24, 0.2f}, {Same(0, 90), Same(90, 131)}, 131, 90};
  ExpectBitsOfDense<float>(c);
  ExpectBitsOfDense<BF16>(c);
}

TEST(SparseAttention, SameBitsForAnyNumberOfThreads) {
  Case c = Cases()[2];
  c.shape.heads = 5;
  const Data d = MakeData(c, false);
  const std::vector<int32_t> chosen = Choose(c);
  SetThreads(1);
  const Results want = RunKernels<float>(c, d, chosen);
  for (const int threads : {2, 4}) {
    SetThreads(threads);
    const Results got = RunKernels<float>(c, d, chosen);
    EXPECT_TRUE(SameBits(got.o, want.o));
    EXPECT_TRUE(SameBits(got.dq, want.dq));
    EXPECT_TRUE(SameBits(got.dkv, want.dkv));
    EXPECT_TRUE(SameBits(got.dk_rope, want.dk_rope));
  }
  SetThreads(0);
}

}  // namespace
}  // namespace fathom
