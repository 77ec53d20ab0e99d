#include "fathom/kernels/gemm/few_rows.h"

#include "fathom/kernels/gemm/few_rows_plan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/gemm/few_rows.cc"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "fathom/kernels/gemm/few_rows_lines-inl.h"
#include "fathom/kernels/gemm/few_rows_weights-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

HWY_INLINE void StoreResult(const FewRowsProduct& p, int64_t m, int64_t n, float value) {
  if (p.y.dtype() == DType::kF32) {
    float& y = p.y.row<float>(m)[n];
    y = p.write == Write::kAdd ? y + value : value;
  } else {
    BF16& y = p.y.row<BF16>(m)[n];
    y = ToBF16(p.write == Write::kAdd ? ToFloat(y) + value : value);
  }
}

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
// The baseline has no vectors: plain loops, since the unrolled code below would take minutes to compile without any.
template <class T>
float ElementOf(const ConstView& v, int64_t row, int64_t column) {
  return ToFloat(v.row<T>(row)[column]);
}

float WeightAt(const WeightView& w, int64_t n, int64_t k) {
  if (w.value.dtype() == DType::kF32) return ElementOf<float>(w.value, n, k);
  if (w.value.dtype() == DType::kBF16) return ElementOf<BF16>(w.value, n, k);
  return ElementOf<F8E4M3>(w.value, n, k);
}

// A sum per block of 128, times its scale if there is one.
float Dot(const FewRowsProduct& p, int64_t m, int64_t n) {
  const int64_t k = p.x.dim(1);
  float total = 0;
  for (int64_t block = 0; block * kScaleBlock < k; ++block) {
    float sum = 0;
    for (int64_t i = block * kScaleBlock; i < std::min(k, (block + 1) * kScaleBlock); ++i) {
      sum += (p.x.dtype() == DType::kF32 ? ElementOf<float>(p.x, m, i) : ElementOf<BF16>(p.x, m, i)) * WeightAt(p.w, n, i);
    }
    total += p.w.scale.empty() ? sum : sum * BlockScale(p.w.scale, n / kScaleBlock, block);
  }
  return total;
}

void FewRowsColumns(const FewRowsProduct& p, int64_t begin, int64_t end, bool, std::byte*) {
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t m = 0; m < p.x.dim(0); ++m) StoreResult(p, m, n, Dot(p, m, n));
  }
}
#else

// How far ahead of each stream memory is asked for: the hardware's own prefetch stops at the end of a page. Only codes, which take
// longest to unpack, gain by it.
constexpr int64_t kPrefetchBytes = 4096;

// Weight rows read side by side: as many as have room in registers beside kM sums each.
template <class W, int kM>
constexpr int kStreams = kM == 1 ? 4 : std::clamp((HWY_MAX_BYTES == 64 ? 26 : 13) / (W::kParts + kM), 1, 4);
#if HWY_TARGET == HWY_AVX3_DL
// As many of them as are joined; more are slower again (Zen 5, one thread: BF16 37 GB/s with two, 32 with four; FP8 31, 33, 31 with 2 to
// 4).
template <class W>
constexpr int kJoinedStreams = W::kScaled ? 3 : 2;
#endif

// x in the order in which a line of weights unpacks: [line][m][element], zeros behind the end. kM >= x's rows, the others are zero.
template <class W, int kM>
void ArrangeX(const ConstView& x, typename W::X* to) {
  const int64_t k = x.dim(1), size = DTypeSize(x.dtype());
  for (int64_t first = 0; first < k; first += W::kLine, to += kM * W::kLine) {
    const int64_t n = std::min<int64_t>(W::kLine, k - first);
    for (int64_t m = 0; m < x.dim(0); ++m) {
      const InRow row = RowAt(x, m);
      W::ArrangeLine({row.data + first * size, row.dtype}, n, to + m * W::kLine);
    }
    std::memset(to + x.dim(0) * W::kLine, 0, static_cast<size_t>((kM - x.dim(0)) * W::kLine) * sizeof(*to));
  }
}

template <class W, int kM, int kR>
struct Sums {
  VF v[kR][kM];
  HWY_INLINE void Clear() {
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 8
      for (int m = 0; m < kM; ++m) v[r][m] = hn::Zero(DF());
    }
  }
  HWY_INLINE void AddScaled(const Sums& sums, const float* const* scale, int64_t block) {
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
      const VF factor = hn::Set(DF(), scale[r][block]);
#pragma GCC unroll 8
      for (int m = 0; m < kM; ++m) v[r][m] = hn::MulAdd(W::Unbias(sums.v[r][m]), factor, v[r][m]);
    }
  }
  // Past the end of the weights this asks for nothing that is touched.
  static HWY_INLINE void Prefetch(const typename W::T* const* row, int64_t at) {
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
      __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(row[r] + at) + kPrefetchBytes), 0, 2);
    }
  }
  // A line of each stream times the same elements of every row of x.
  template <class Lines>
  HWY_INLINE void AddLine(Lines& lines, int64_t at, const typename W::X* x) {
    typename W::Parts parts[kR];
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) parts[r] = lines.Line(r, at);
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) v[r][m] = W::MulAdd(parts[r], x + m * W::kLine, v[r][m]);
    }
  }
  template <class Lines>
  HWY_INLINE void AddWholeLines(Lines& lines, int64_t at, int64_t count, const typename W::X* x) {
#pragma GCC unroll 2
    for (int64_t line = 0; line < count; ++line, at += W::kLine, x += kM * W::kLine) {
      if constexpr (W::kScaled) Prefetch(lines.row, at);
      AddLine(lines, at, x);
    }
  }
  // The n < kLine elements at the end of a row; nothing behind them is read.
  HWY_INLINE void AddRest(const StoredLines<W, kR>& lines, int64_t at, int64_t n, const typename W::X* x) {
    alignas(64) typename W::T rest[kR][W::kLine] = {};
    StoredLines<W, kR> tails = lines;
    for (int r = 0; r < kR; ++r) {
      std::memcpy(rest[r], lines.row[r] + at, static_cast<size_t>(n) * sizeof(typename W::T));
      tails.row[r] = rest[r];
    }
    AddLine(tails, 0, x);
  }
};

// Block scales as F32, from block row `first` on.
struct Scales {
  const float* data;
  int64_t first, stride;
  const float* OfRow(int64_t row) const { return data + (row / kScaleBlock - first) * stride; }
};

Scales ConvertScales(const WeightView& w, int64_t begin, int64_t end, float* to) {
  const Scales scales{to, begin / kScaleBlock, w.scale.dim(1)};
  for (int64_t i = scales.first; i <= (end - 1) / kScaleBlock; ++i) {
    for (int64_t j = 0; j < scales.stride; ++j) *to++ = BlockScale(w.scale, i, j);
  }
  return scales;
}

// The next row of each stream times every row of x; `stored` lines at its end are read as they lie.
template <class W, int kM, int kR, class Lines>
HWY_INLINE void DotRows(Lines& lines, int64_t k, int64_t stored, const typename W::X* x, Sums<W, kM, kR>& sums) {
  constexpr int64_t kStep = kM * W::kLine;
  const int64_t whole = k / W::kLine, first = whole - stored;
  StoredLines<W, kR>& as_they_lie = lines;
  sums.Clear();
  sums.AddWholeLines(lines, 0, first, x);
  sums.AddWholeLines(as_they_lie, first * W::kLine, stored, x + first * kStep);
  if (whole * W::kLine < k) sums.AddRest(as_they_lie, whole * W::kLine, k - whole * W::kLine, x + whole * kStep);
}

// The same where each block of 128 has a scale of its own.
template <class W, int kM, int kR, class Lines>
HWY_INLINE void DotScaledRows(Lines& lines, int64_t k, int64_t stored, const float* const* scale, const typename W::X* x,
                              Sums<W, kM, kR>& total) {
  constexpr int64_t kLines = kScaleBlock / W::kLine, kStep = kM * W::kLine;
  StoredLines<W, kR>& as_they_lie = lines;
  total.Clear();
  int64_t block = 0;
  for (; (block + 1) * kScaleBlock < k; ++block, x += kLines * kStep) {
    Sums<W, kM, kR> sums;
    sums.Clear();
    sums.AddWholeLines(lines, block * kScaleBlock, kLines, x);
    total.AddScaled(sums, scale, block);
  }
  const int64_t at = block * kScaleBlock, whole = (k - at) / W::kLine, first = whole - stored, rest = (k - at) % W::kLine;
  Sums<W, kM, kR> sums;
  sums.Clear();
  sums.AddWholeLines(lines, at, first, x);
  sums.AddWholeLines(as_they_lie, at + first * W::kLine, stored, x + first * kStep);
  if (rest > 0) sums.AddRest(as_they_lie, at + whole * W::kLine, rest, x + whole * kStep);
  total.AddScaled(sums, scale, block);
}

// Columns of y: kR streams of weights. x is arranged.
template <class W, int kM, int kR, template <class, int> class Lines>
void RunStreams(const FewRowsProduct& p, const Streams& streams, const typename W::X* x, const Scales& scales) {
  const int64_t k = p.w.value.dim(1);
  Lines<W, kR> lines(p.w, streams);
  for (int64_t i = 0; i < streams.stretch; ++i) {
    const int64_t stored = i + 1 == streams.stretch ? Lines<W, kR>::kLast : 0;
    Sums<W, kM, kR> total;
    if constexpr (W::kScaled) {
      const float* scale[kR];
      for (int r = 0; r < kR; ++r) scale[r] = scales.OfRow(streams.begin + r * streams.stretch + i);
      DotScaledRows<W, kM, kR>(lines, k, stored, scale, x, total);
    } else {
      DotRows<W, kM, kR>(lines, k, stored, x, total);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
      const int64_t n = streams.begin + r * streams.stretch + i;
#pragma GCC unroll 8
      for (int m = 0; m < kM; ++m) {
        if (m < p.x.dim(0)) StoreResult(p, m, n, hn::GetLane(hn::SumOfLanes(DF(), total.v[r][m])));
      }
    }
    lines.NextRow(p.w.value.stride());
  }
}

// Columns [begin, end) of y, those that are left over one by one.
template <class W, int kM, int kR, template <class, int> class Lines>
void RunColumnsBy(const FewRowsProduct& p, int64_t begin, int64_t end, const typename W::X* x, const Scales& scales) {
  const int64_t stretch = (end - begin) / kR, rest = begin + kR * stretch;
  RunStreams<W, kM, kR, Lines>(p, {begin, stretch}, x, scales);
  if (rest < end) RunStreams<W, kM, 1, StoredLines>(p, {rest, end - rest}, x, scales);
}

template <class W, int kM>
void RunColumns(const FewRowsProduct& p, int64_t begin, int64_t end, const typename W::X* x, const Scales& scales) {
#if HWY_TARGET == HWY_AVX3_DL
  constexpr int kR = std::min(kJoinedStreams<W>, kStreams<W, kM>);
  if (JoinedLines<W, kR>::Fits(p.w)) return RunColumnsBy<W, kM, kR, JoinedLines>(p, begin, end, x, scales);
#endif
  RunColumnsBy<W, kM, kStreams<W, kM>, StoredLines>(p, begin, end, x, scales);
}

// f with the number of rows to compute with, at least m.
template <class F>
void WithRows(int64_t m, const F& f) {
  if (m == 1) return f(std::integral_constant<int, 1>());
  if (m == 2) return f(std::integral_constant<int, 2>());
  if (m <= 4) return f(std::integral_constant<int, 4>());
  f(std::integral_constant<int, 8>());
}

// Up to kSweepRows rows: each piece of the weights serves all their blocks while it is in cache. Scratch holds x as arranged, block by
// block, then scales.
template <class W>
void Sweep(const FewRowsProduct& p, int64_t begin, int64_t end, std::byte* scratch) {
  const int64_t k = p.x.dim(1), each = ArrangedBytes(k);
  const auto for_blocks = [&](const auto& f) {
    for (int64_t m = 0; m < p.x.dim(0); m += kRowBlock) {
      const int64_t last = std::min(p.x.dim(0), m + kRowBlock);
      auto* x = reinterpret_cast<typename W::X*>(scratch + m / kRowBlock * each);
      WithRows(last - m, [&](auto rows) { f(FewRowsProduct{p.x.Rows(m, last), p.w, p.y.Rows(m, last), p.write}, x, rows); });
    }
  };
  for_blocks([](const FewRowsProduct& block, typename W::X* x, auto rows) { ArrangeX<W, rows()>(block.x, x); });
  Scales scales{};
  if constexpr (W::kScaled) scales = ConvertScales(p.w, begin, end, reinterpret_cast<float*>(scratch + kSweepRows / kRowBlock * each));
  const int64_t row_bytes = std::max<int64_t>(1, k * static_cast<int64_t>(sizeof(typename W::T)));
  const int64_t piece = p.x.dim(0) <= kRowBlock ? end - begin : std::max<int64_t>(kRowBlock, kPieceBytes / row_bytes);
  for (int64_t first = begin; first < end; first += piece) {
    const int64_t last = std::min(end, first + piece);
    for_blocks(
        [&](const FewRowsProduct& block, const typename W::X* x, auto rows) { RunColumns<W, rows()>(block, first, last, x, scales); });
  }
}

template <class W>
void RunWith(const FewRowsProduct& p, int64_t begin, int64_t end, std::byte* scratch) {
  for (int64_t m = 0; m < p.x.dim(0); m += kSweepRows) {
    const int64_t last = std::min(p.x.dim(0), m + kSweepRows);
    Sweep<W>({p.x.Rows(m, last), p.w, p.y.Rows(m, last), p.write}, begin, end, scratch);
  }
}

void FewRowsColumns(const FewRowsProduct& p, int64_t begin, int64_t end, bool bf16_pairs, std::byte* scratch) {
  const DType type = p.w.value.dtype();
#if HWY_TARGET == HWY_AVX3_DL
  if (bf16_pairs && type == DType::kBF16) return RunWith<PairsBF16>(p, begin, end, scratch);
  if (bf16_pairs && type == DType::kF8E4M3) return RunWith<PairsFP8>(p, begin, end, scratch);
#endif
  (void)bf16_pairs;
  if (type == DType::kF32) return RunWith<WeightsF32>(p, begin, end, scratch);
  if (type == DType::kBF16) return RunWith<WeightsBF16>(p, begin, end, scratch);
  RunWith<WeightsFP8>(p, begin, end, scratch);
}
#endif

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/base/threads.h"
#include "fathom/kernels/gemm/gemm_panel.h"
#include "fathom/kernels/gemm/gemm_tiles.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
HWY_EXPORT(FewRowsColumns);
namespace {

// A worker's scratch: converted weights, then what the kernel takes.
int64_t ConvertedBytes(int64_t k) { return (kConvertedRows * k * static_cast<int64_t>(sizeof(float)) + 63) / 64 * 64; }
int64_t WorkerBytes(int64_t n, int64_t k) {
  return ConvertedBytes(k) + kSweepRows / kRowBlock * ArrangedBytes(k) +
         ((n / kScaleBlock + 2) * (k / kScaleBlock + 1) * static_cast<int64_t>(sizeof(float)) + 63) / 64 * 64;
}
// Less weight than this is not worth another thread.
constexpr int64_t kLeastBytes = 8192;

// Whether the kernel reads such weights as they lie.
bool IsReadAsStored(const FewRowsProduct& p) {
  const DType type = p.w.value.dtype();
  return type == DType::kBF16 || type == DType::kF8E4M3 || (type == DType::kF32 && p.x.dtype() == DType::kF32);
}

// Columns [begin, end) of a product whose weights are widened, or rounded to x's BF16, into `converted`.
void ConvertedColumns(const FewRowsProduct& p, int64_t begin, int64_t end, bool pairs, std::byte* converted, std::byte* scratch) {
  const int64_t k = p.x.dim(1);
  for (int64_t n = begin; n < end; n += kConvertedRows) {
    const int64_t rows = std::min(kConvertedRows, end - n);
    if (p.x.dtype() == DType::kBF16) {
      NarrowPanel(p.w, {n, rows, 0, k}, reinterpret_cast<BF16*>(converted));
    } else {
      WidenPanel(p.w, {n, rows, 0, k}, false, reinterpret_cast<float*>(converted));
    }
    const WeightView w{ConstView(converted, p.x.dtype(), {rows, k}), {}};
    HWY_DYNAMIC_DISPATCH(FewRowsColumns)({p.x, w, p.y.Cols(n, n + rows), p.write}, 0, rows, pairs, scratch);
  }
}

}  // namespace

bool IsFewRows(const ConstView& x, const WeightView& w) {
  const DType type = w.value.dtype();
  if (x.dim(1) == 0) return false;
  if (type == DType::kF32) return x.dtype() == DType::kF32 && x.dim(0) <= kFewRowsF32;
  return (type == DType::kBF16 || type == DType::kF8E4M3) && x.dim(0) <= kFewRows;
}

void RunFewRows(int64_t count, FunctionRef<FewRowsProduct(int64_t)> product, Arena& scratch) {
  FATHOM_CHECK(count <= kMostProducts, "{} products at once", count);
  const ArenaScope scope(scratch);
  int64_t bytes = 0, widest = 0, longest = 0;
  const JobTable columns(scratch, count, [&](int64_t e) {
    const FewRowsProduct p = product(e);
    const bool any = p.x.dim(0) > 0;
    bytes += any ? p.w.value.NumBytes() : 0;
    widest = std::max(widest, p.w.value.dim(0));
    longest = std::max(longest, p.w.value.dim(1));
    return any ? p.w.value.dim(0) : 0;
  });
  const int64_t total = columns.size(), slices = std::clamp<int64_t>(bytes / kLeastBytes, 1, NumWorkers());
  const WorkerScratch<std::byte> workers(scratch, WorkerBytes(widest, longest));
  const bool native_bf16 = HasNativeBF16();
  workers.Run(slices, [&](int64_t slice, std::byte* converted) {
    const int64_t begin = total * slice / slices, end = total * (slice + 1) / slices;
    for (int64_t e = columns.At(begin).item; e < count && columns.First(e) < end; ++e) {
      const int64_t first = columns.First(e), last = columns.First(e + 1);
      if (first == last) continue;
      const FewRowsProduct p = product(e);
      const int64_t from = std::max(begin, first) - first, to = std::min(end, last) - first;
      const bool pairs = native_bf16 && p.x.dtype() == DType::kBF16;
      std::byte* rest = converted + ConvertedBytes(p.x.dim(1));
      if (IsReadAsStored(p)) {
        HWY_DYNAMIC_DISPATCH(FewRowsColumns)(p, from, to, pairs, rest);
      } else {
        ConvertedColumns(p, from, to, pairs, converted, rest);
      }
    }
  });
}

int64_t FewRowsScratchBytes(int64_t threads, int64_t n, int64_t k) { return threads * WorkerBytes(n, k) + (kMostProducts + 1) * 8 + 256; }

}  // namespace fathom
#endif  // HWY_ONCE
