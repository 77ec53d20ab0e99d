#include "fathom/kernels/gemm/gemm_tiles.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "fathom/base/threads.h"
#include "fathom/base/trace.h"
#include "fathom/kernels/gemm/gemm_onednn.h"
#include "fathom/kernels/gemm/gemm_panel.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {

// The result is cut into tiles, each one thread's work from beginning to end. Their rows follow from the shape alone; their columns are
// fewer where threads would go without, which changes no bits (ColumnUnit()). Sums are cut into chunks where an operand must be converted
// first (the panels stay in cache) and where their length is a number of tokens. Short sums get tiles with more rows, so that each product
// is worth its start.
constexpr int64_t kTileRows = 256, kMostTileRows = 1024, kTileColumns = 256, kTileWork = 256 * 512;
// Of so few threads none goes without for long, and whole tiles are faster.
constexpr int64_t kFewThreads = 4;
constexpr int64_t kChunkF32 = 512, kChunkBF16 = 1024, kChunkTokens = 512;
// BF16 products have their number of tokens rounded up to a multiple of this.
constexpr int64_t kTokenUnit = 16;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

struct Tile {
  int64_t row, rows, column, columns;
  PanelRange range() const { return {row, rows, column, columns}; }
};

int64_t RowsOfTiles(const Product& p) {
  if (p.a_transposed) return kTileRows;
  return std::clamp(kTileWork / p.k / kTileRows * kTileRows, kTileRows, kMostTileRows);
}

// Of a result as wide as a tile nothing is cut: a part of it would be another product to oneDNN.
int64_t ColumnsOfTiles(const Product& p, int64_t columns) { return p.n > kTileColumns ? columns : kTileColumns; }

bool IsEmpty(const Product& p) { return p.m == 0 || p.n == 0 || p.k == 0; }

int64_t TileCount(const Product& p, int64_t most_columns) {
  if (IsEmpty(p)) return 0;
  const int64_t rows = RowsOfTiles(p), columns = ColumnsOfTiles(p, most_columns);
  return (RoundUp(p.m, rows) / rows) * (RoundUp(p.n, columns) / columns);
}

Tile TileOf(const Product& p, int64_t most_columns, int64_t i) {
  const int64_t rows = RowsOfTiles(p), down = RoundUp(p.m, rows) / rows, row = i % down * rows;
  const int64_t columns = ColumnsOfTiles(p, most_columns), column = i / down * columns;
  return {row, std::min(rows, p.m - row), column, std::min(columns, p.n - column)};
}

// The widest tiles that the threads can share evenly, or those that they share best.
int64_t WidestEvenTiles(int64_t count, FunctionRef<Product(int64_t)> product, int64_t threads) {
  if (threads <= kFewThreads || HasMatrixUnit()) return kTileColumns;  // whose sums may depend on how wide a tile is
  const int64_t unit = ColumnUnit();
  int64_t best = kTileColumns;
  double least = std::numeric_limits<double>::infinity();
  for (const int64_t most : {256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 4}) {
    const int64_t columns = RoundUp(most, unit);
    int64_t tiles = 0;
    for (int64_t e = 0; e < count; ++e) tiles += TileCount(product(e), columns);
    const double uneven = Unevenness(tiles, threads);
    if (uneven >= least) continue;
    least = uneven;
    best = columns;
    if (least <= kEvenEnough) break;
  }
  return best;
}

// A worker's panels of the two factors and its tile of the result.
struct TileScratch {
  static constexpr int64_t kPanel = std::max(kTileRows, kTileColumns) * std::max(kChunkF32 * 4, kChunkBF16 * 2);
  static_assert(kPanel >= kTileWork * 4, "a tile's rows of a short sum fit too");
  static constexpr int64_t kBytes = 2 * kPanel + kMostTileRows * kTileColumns * 4;
  std::byte *a, *b;
  float* c;
  explicit TileScratch(std::byte* base) : a(base), b(base + kPanel), c(reinterpret_cast<float*>(base + 2 * kPanel)) {}
};

// Where a tile's sum grows: in the result itself, or in scratch where that is not F32 or has no room for padding.
struct Sum {
  bool in_place;
  DType dtype;
  void* data;
  int64_t stride;
  Sum(const Product& p, const Tile& t, bool here, float* scratch)
      : in_place(here), dtype(here ? p.c.dtype() : DType::kF32), data(scratch), stride(here ? p.c.stride() : t.columns) {
    if (here) data = p.c.raw() + (t.row * p.c.stride() + t.column) * DTypeSize(p.c.dtype());
  }
};

// Entries [outer, outer + n) of the dimension that stays and [k, k + chunk) of the one summed over.
PanelRange PartOf(bool summed_first, int64_t outer, int64_t n, int64_t k, int64_t chunk) {
  return summed_first ? PanelRange{k, chunk, outer, n} : PanelRange{outer, n, k, chunk};
}

Factor InPlace(const ConstView& v, const PanelRange& part, bool transposed) {
  return {v.raw() + (part.row * v.stride() + part.column) * DTypeSize(v.dtype()), v.stride(), transposed};
}

// F32 as it lies, or widened (after rounding to BF16, where asked) into the panel.
Factor FactorF32(const WeightView& w, const PanelRange& part, bool round, bool transposed, std::byte* panel) {
  if (w.value.dtype() == DType::kF32 && !round) return InPlace(w.value, part, transposed);
  WidenPanel(w, part, round, reinterpret_cast<float*>(panel));
  return {panel, part.columns, transposed};
}

// The right factor. A transposed one is turned round on the way into the panel: sgemm is a tenth faster on rows than on columns.
Factor RightFactorF32(const Product& p, const Tile& t, int64_t k, int64_t chunk, bool round, std::byte* panel) {
  if (!p.b_transposed) return FactorF32(p.b, {k, chunk, t.column, t.columns}, round, false, panel);
  TransposePanel(p.b, {t.column, t.columns, k, chunk}, round, reinterpret_cast<float*>(panel));
  return {panel, t.columns, false};
}

// BF16 as it lies, or rounded into the panel, with zero rows behind up to padded_rows.
Factor FactorBF16(const WeightView& w, const PanelRange& part, int64_t padded_rows, bool transposed, std::byte* panel) {
  if (w.value.dtype() == DType::kBF16 && padded_rows == part.rows) return InPlace(w.value, part, transposed);
  BF16* to = reinterpret_cast<BF16*>(panel);
  NarrowPanel(w, part, to);
  std::memset(to + part.rows * part.columns, 0, static_cast<size_t>((padded_rows - part.rows) * part.columns) * sizeof(BF16));
  return {panel, part.columns, transposed};
}

void RunTileF32(const Product& p, const Tile& t, const TileScratch& scratch) {
  const bool round = p.a.value.dtype() == DType::kBF16, add = p.write == Write::kAdd;
  const bool whole = !round && !p.b_transposed && p.b.value.dtype() == DType::kF32;
  const Sum sum(p, t, p.c.dtype() == DType::kF32, scratch.c);
  const int64_t step = whole ? p.k : kChunkF32;
  for (int64_t k = 0; k < p.k; k += step) {
    const int64_t chunk = std::min(step, p.k - k);
    const Factor a = FactorF32(p.a, PartOf(p.a_transposed, t.row, t.rows, k, chunk), false, p.a_transposed, scratch.a);
    const Factor b = RightFactorF32(p, t, k, chunk, round, scratch.b);
    MultiplyF32({t.rows, t.columns, chunk, a, b, k > 0 || (add && sum.in_place), sum.dtype, sum.data, sum.stride});
  }
  if (!sum.in_place) StorePanel(scratch.c, t.range(), add, p.c);
}

// Tokens are rows of the result. The last tile's are rounded up: by what lies behind them where that may be read, else by zeros.
void RunRowsBF16(const Product& p, const Tile& t, const TileScratch& scratch) {
  const int64_t rows = RoundUp(t.rows, kTokenUnit);
  const bool padded = rows != t.rows, add = p.write == Write::kAdd, readable = t.row + rows <= p.m + p.rows_behind;
  const int64_t step = p.b.value.dtype() == DType::kBF16 && readable ? p.k : kChunkBF16;
  const Sum sum(p, t, !padded && (step >= p.k || p.c.dtype() == DType::kF32), scratch.c);
  for (int64_t k = 0; k < p.k; k += step) {
    const int64_t chunk = std::min(step, p.k - k);
    const PanelRange a_part{t.row, t.rows, k, chunk}, b_part = PartOf(!p.b_transposed, t.column, t.columns, k, chunk);
    const Factor a = readable ? InPlace(p.a.value, a_part, false) : FactorBF16(p.a, a_part, rows, false, scratch.a);
    const Factor b = FactorBF16(p.b, b_part, b_part.rows, p.b_transposed, scratch.b);
    MultiplyBF16({rows, t.columns, chunk, a, b, k > 0 || (add && sum.in_place), sum.dtype, sum.data, sum.stride});
  }
  if (!sum.in_place) StorePanel(scratch.c, t.range(), add, p.c);
}

// Tokens are what the sum runs over: whole units as they lie, the rest padded.
void RunTokenSumBF16(const Product& p, const Tile& t, const TileScratch& scratch) {
  const Sum sum(p, t, true, nullptr);
  for (int64_t k = 0, chunk; k < p.k; k += chunk) {
    chunk = std::min(kChunkTokens, p.k - k);
    if (chunk > kTokenUnit) chunk = chunk / kTokenUnit * kTokenUnit;
    const int64_t padded = RoundUp(chunk, kTokenUnit);
    const Factor a = FactorBF16(p.a, {k, chunk, t.row, t.rows}, padded, true, scratch.a);
    const Factor b = FactorBF16(p.b, {k, chunk, t.column, t.columns}, padded, false, scratch.b);
    MultiplyBF16({t.rows, t.columns, padded, a, b, k > 0 || p.write == Write::kAdd, sum.dtype, sum.data, sum.stride});
  }
}

void Clear(View c) {
  const size_t bytes = static_cast<size_t>(c.dim(1) * DTypeSize(c.dtype()));
  ParallelRanges(c.dim(0), kTileRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::memset(c.raw() + i * c.stride() * DTypeSize(c.dtype()), 0, bytes);
  });
}

// The tiles that a product takes; one without a sum is done here.
int64_t TilesToRun(const Product& p, int64_t columns) {
  if (p.m > 0 && p.n > 0 && p.k == 0 && p.write == Write::kOverwrite) Clear(p.c);
  return TileCount(p, columns);
}

}  // namespace

void RunProducts(int64_t count, FunctionRef<Product(int64_t)> product, Arena& scratch) {
  FATHOM_CHECK(count <= kMostProducts, "{} products at once", count);
  const ArenaScope scope(scratch);
  const int64_t columns = WidestEvenTiles(count, product, NumWorkers());
  const JobTable tiles(scratch, count, [&](int64_t e) { return TilesToRun(product(e), columns); });
  const WorkerScratch<std::byte> panels(scratch, TileScratch::kBytes);
  const bool native_bf16 = HasNativeBF16() || HasMatrixUnit();
  TraceWorkers traced(NumWorkers());
  const auto work_of = [&](int64_t job) {
    const auto [e, i] = tiles.At(job);
    const Product p = product(e);
    const Tile tile = TileOf(p, columns, i);
    return static_cast<double>(tile.rows * tile.columns * p.k);
  };
  panels.Run(tiles.size(), work_of, [&](int64_t job, std::byte* panel) {
    const OneThread one;
    const auto [e, tile] = tiles.At(job);
    const Product p = product(e);
    const auto run = !native_bf16 || p.a.value.dtype() != DType::kBF16 ? RunTileF32 : p.a_transposed ? RunTokenSumBF16 : RunRowsBF16;
    traced.Run(omp_get_thread_num(), [&, tile = tile] { run(p, TileOf(p, columns, tile), TileScratch(panel)); });
  });
}

int64_t ProductScratchBytes(int64_t threads) { return threads * TileScratch::kBytes + (kMostProducts + 1) * 8 + 256; }

}  // namespace fathom
