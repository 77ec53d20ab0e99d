#include "fathom/kernels/gemm.h"

#include <algorithm>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>

#include "fathom/base/threads.h"
#include "fathom/kernels/gemm_panel.h"

namespace fathom {
namespace {

// The result is cut into tiles by its shape alone and each tile is one thread's work from beginning to end, so the bits can't depend
// on the number of threads. Where an operand must be widened first, the sum is cut into chunks that stay in cache.
constexpr int64_t kTileRows = 256, kTileColumns = 256, kChunk = 512;

// c [m,n] (+)= a b, where a is [m,k] (or [k,m] with a_transposed) and b is [k,n] (or [n,k] with b_transposed).
struct Product {
  int64_t m, n, k;
  WeightView a;
  bool a_transposed;
  WeightView b;
  bool b_transposed;
  View c;
  Write write;
  int64_t row_tiles() const { return (m + kTileRows - 1) / kTileRows; }
  int64_t tiles() const { return row_tiles() * ((n + kTileColumns - 1) / kTileColumns); }
};

struct Tile {
  int64_t row, rows, column, columns;
};

Tile TileOf(const Product& p, int64_t i) {
  const int64_t row = i % p.row_tiles() * kTileRows, column = i / p.row_tiles() * kTileColumns;
  return {row, std::min(kTileRows, p.m - row), column, std::min(kTileColumns, p.n - column)};
}

struct Factor {
  const float* data;
  int64_t stride;
};

// Entries [outer, outer + n) of the dimension that stays and [k, k + chunk) of the one summed over: in place when the matrix is F32
// and wanted unrounded, else widened into `panel`.
Factor FactorPart(const WeightView& w, bool summed_first, int64_t outer, int64_t n, int64_t k, int64_t chunk, bool round, float* panel) {
  const PanelRange part = summed_first ? PanelRange{k, chunk, outer, n} : PanelRange{outer, n, k, chunk};
  if (w.value.dtype() == DType::kF32 && !round) return {w.value.row<float>(part.row) + part.column, w.value.stride()};
  WidenPanel(w, part, round, panel);
  return {panel, part.columns};
}

struct TileScratch {
  float *a, *b, *c;
  static constexpr int64_t kFloats = kTileRows * kChunk + kTileColumns * kChunk + kTileRows * kTileColumns;
  explicit TileScratch(float* base) : a(base), b(a + kTileRows * kChunk), c(b + kTileColumns * kChunk) {}
};

void RunTile(const Product& p, const Tile& t, TileScratch scratch) {
  const bool round = p.a.value.dtype() == DType::kBF16, add = p.write == Write::kAdd, in_place = p.c.dtype() == DType::kF32;
  const bool whole = !round && p.b.value.dtype() == DType::kF32;
  float* c = in_place ? p.c.row<float>(t.row) + t.column : scratch.c;
  const int64_t ldc = in_place ? p.c.stride() : t.columns, step = whole ? p.k : kChunk;
  for (int64_t k = 0; k < p.k; k += step) {
    const int64_t chunk = std::min(step, p.k - k);
    const Factor a = FactorPart(p.a, p.a_transposed, t.row, t.rows, k, chunk, false, scratch.a);
    const Factor b = FactorPart(p.b, !p.b_transposed, t.column, t.columns, k, chunk, round, scratch.b);
    const float beta = k > 0 || (add && in_place) ? 1.0f : 0.0f;
    const auto status = dnnl_sgemm(p.a_transposed ? 'T' : 'N', p.b_transposed ? 'T' : 'N', t.rows, t.columns, chunk, 1.0f, a.data, a.stride, b.data,
                                   b.stride, beta, c, ldc);
    FATHOM_CHECK(status == dnnl_success, "sgemm {}x{}x{}: status {}", t.rows, t.columns, chunk, static_cast<int>(status));
  }
  if (!in_place) StorePanel(scratch.c, {t.row, t.rows, t.column, t.columns}, add, p.c);
}

// oneDNN must not split a tile's sum over threads of its own: outside of a parallel region this thread asks it for one.
class OneThread {
 public:
  OneThread() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
};

void Clear(View c) {
  const size_t bytes = static_cast<size_t>(c.dim(1) * DTypeSize(c.dtype()));
  for (int64_t i = 0; i < c.dim(0); ++i) std::memset(c.raw() + i * c.stride() * DTypeSize(c.dtype()), 0, bytes);
}

// product(e) for e in [0, count), all their tiles handed out to the threads together.
template <class F>
void RunProducts(int64_t count, const F& product, Arena& scratch) {
  const ArenaScope scope(scratch);
  int64_t* first = scratch.AllocArray<int64_t>(count + 1);
  first[0] = 0;
  for (int64_t e = 0; e < count; ++e) {
    const Product p = product(e);
    const bool nothing_to_sum = p.k == 0 || p.m == 0 || p.n == 0;
    if (nothing_to_sum && p.write == Write::kOverwrite && p.m * p.n > 0) Clear(p.c);
    first[e + 1] = first[e] + (nothing_to_sum ? 0 : p.tiles());
  }
  float* floats = scratch.AllocArray<float>(NumWorkers() * TileScratch::kFloats);
  ParallelWorkerJobs(first[count], [&](int64_t job, int worker) {
    const OneThread one;
    const int64_t e = std::upper_bound(first, first + count + 1, job) - first - 1;
    const Product p = product(e);
    RunTile(p, TileOf(p, job - first[e]), TileScratch(floats + worker * TileScratch::kFloats));
  });
}

bool IsActivation(const ConstView& v) { return v.rank() == 2 && (v.dtype() == DType::kF32 || v.dtype() == DType::kBF16); }

void CheckWeight(const WeightView& w) {
  const DType type = w.value.dtype();
  const bool plain = type == DType::kF32 || type == DType::kBF16 || type == DType::kF16;
  FATHOM_CHECK(w.value.rank() == 2 && (plain || type == DType::kF8E4M3), "weight {} {}", DTypeName(type), w.value.shape().ToString());
  if (plain) return;
  const int64_t rows = (w.value.dim(0) + kScaleBlock - 1) / kScaleBlock, columns = (w.value.dim(1) + kScaleBlock - 1) / kScaleBlock;
  FATHOM_CHECK(w.scale.rank() == 2 && w.scale.dim(0) == rows && w.scale.dim(1) == columns, "weight {} with scales {}", w.value.shape().ToString(),
               w.scale.shape().ToString());
}

// x [M, weight's columns] and y [M, weight's rows] for NT; the other way round for NN.
void CheckLinear(const ConstView& in, const WeightView& w, const View& out, int in_axis) {
  CheckWeight(w);
  FATHOM_CHECK(IsActivation(in) && IsActivation(out) && in.dim(0) == out.dim(0) && in.dim(1) == w.value.dim(in_axis) &&
                   out.dim(1) == w.value.dim(1 - in_axis),
               "in {} {}, weight {}, out {} {}", DTypeName(in.dtype()), in.shape().ToString(), w.value.shape().ToString(), DTypeName(out.dtype()),
               out.shape().ToString());
}

void CheckGroups(std::span<const int64_t> begin, size_t groups, int64_t rows) {
  FATHOM_CHECK(begin.size() == groups + 1 && begin.front() == 0 && begin.back() == rows, "{} groups, {} bounds, {} rows", groups, begin.size(), rows);
}

void CheckGradient(const ConstView& dy, const ConstView& x, const View& dw) {
  FATHOM_CHECK(IsActivation(dy) && IsActivation(x) && dy.dtype() == x.dtype() && dw.rank() == 2 && dw.dtype() == DType::kF32 &&
                   dy.dim(0) == x.dim(0) && dw.dim(0) == dy.dim(1) && dw.dim(1) == x.dim(1),
               "dy {} {}, x {} {}, dw {} {}", DTypeName(dy.dtype()), dy.shape().ToString(), DTypeName(x.dtype()), x.shape().ToString(),
               DTypeName(dw.dtype()), dw.shape().ToString());
}

Product ForwardProduct(const ConstView& x, const WeightView& w, const View& y, Write write) {
  CheckLinear(x, w, y, 1);
  return {x.dim(0), y.dim(1), x.dim(1), {x, {}}, false, w, true, y, write};
}
Product InputGradientProduct(const ConstView& dy, const WeightView& w, const View& dx, Write write) {
  CheckLinear(dy, w, dx, 0);
  return {dy.dim(0), dx.dim(1), dy.dim(1), {dy, {}}, false, w, false, dx, write};
}
Product WeightGradientProduct(const ConstView& dy, const ConstView& x, const View& dw, Write write) {
  CheckGradient(dy, x, dw);
  return {dw.dim(0), dw.dim(1), x.dim(0), {dy, {}}, true, {x, {}}, false, dw, write};
}

template <class V>
V Group(const V& v, std::span<const int64_t> begin, int64_t e) {
  return v.Rows(begin[static_cast<size_t>(e)], begin[static_cast<size_t>(e) + 1]);
}

}  // namespace

void MatMulNT(ConstView x, const WeightView& w, View y, Write write, Arena& scratch) {
  RunProducts(1, [&](int64_t) { return ForwardProduct(x, w, y, write); }, scratch);
}

void MatMulNN(ConstView dy, const WeightView& w, View dx, Write write, Arena& scratch) {
  RunProducts(1, [&](int64_t) { return InputGradientProduct(dy, w, dx, write); }, scratch);
}

void MatMulTN(ConstView dy, ConstView x, View dw, Write write, Arena& scratch) {
  RunProducts(1, [&](int64_t) { return WeightGradientProduct(dy, x, dw, write); }, scratch);
}

void GroupedMatMulNT(ConstView x, std::span<const int64_t> begin, std::span<const WeightView> w, View y, Write write, Arena& scratch) {
  CheckGroups(begin, w.size(), x.dim(0));
  RunProducts(
      std::ssize(w), [&](int64_t e) { return ForwardProduct(Group(x, begin, e), w[static_cast<size_t>(e)], Group(y, begin, e), write); }, scratch);
}

void GroupedMatMulNN(ConstView dy, std::span<const int64_t> begin, std::span<const WeightView> w, View dx, Write write, Arena& scratch) {
  CheckGroups(begin, w.size(), dy.dim(0));
  RunProducts(
      std::ssize(w), [&](int64_t e) { return InputGradientProduct(Group(dy, begin, e), w[static_cast<size_t>(e)], Group(dx, begin, e), write); },
      scratch);
}

void GroupedMatMulTN(ConstView dy, ConstView x, std::span<const int64_t> begin, std::span<const View> dw, Write write, Arena& scratch) {
  CheckGroups(begin, dw.size(), dy.dim(0));
  RunProducts(
      std::ssize(dw), [&](int64_t e) { return WeightGradientProduct(Group(dy, begin, e), Group(x, begin, e), dw[static_cast<size_t>(e)], write); },
      scratch);
}

int64_t GemmScratchBytes(int64_t rows, int64_t n, int64_t k) {
  (void)rows, (void)n, (void)k;
  constexpr int64_t kMostGroups = 1024;
  return NumThreads() * TileScratch::kFloats * 4 + kMostGroups * 8 + 256;
}

}  // namespace fathom
