// What the attention kernels share: blocks of rows packed for products in cache, the running softmax. Once per SIMD target.
//
// Scores stand transposed, [key][query]: the softmax of a query is then a lane's, without sums across lanes, and only queries are
// ever transposed.
#if defined(FATHOM_KERNELS_ATTENTION_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_ATTENTION_BLOCKS_INL_H_
#undef FATHOM_KERNELS_ATTENTION_BLOCKS_INL_H_
#else
#define FATHOM_KERNELS_ATTENTION_BLOCKS_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "fathom/kernels/attention/attention_plan.h"
#include "fathom/kernels/gemm/block_product-inl.h"
#include "fathom/kernels/simd/prefetch-inl.h"
#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Columns from `column` on of row i of a view.
inline InRow RowAt(const ConstView& v, int64_t i, int64_t column) {
  return {v.raw() + (i * v.stride() + column) * DTypeSize(v.dtype()), v.dtype()};
}
inline OutRow RowAt(const View& v, int64_t i, int64_t column) {
  return {v.raw() + (i * v.stride() + column) * DTypeSize(v.dtype()), v.dtype()};
}

// Rows of one head lie pages apart, where no hardware prefetcher looks: loops over rows ask for them this far ahead.
inline constexpr int64_t kRowsAhead = 12;

HWY_INLINE void CopyRow(const InRow& from, int64_t n, float* to) {
  ForVectors(n, [&](auto at) { Store(at, Load(at, from), to); });
}
HWY_INLINE void CopyRow(const InRow& from, int64_t n, BF16* to) {
  if (from.dtype == DType::kBF16) {
    std::memcpy(to, from.data, static_cast<size_t>(n) * sizeof(BF16));
  } else {
    ForVectors(n, [&](auto at) { at.Store(Load(at, from), to); });
  }
}
HWY_INLINE void AddRow(const float* from, int64_t n, float* to) {
  ForVectors(n, [&](auto at) { at.Store(hn::Add(at.Load(to), at.Load(from)), to); });
}
HWY_INLINE void StoreRow(const float* from, float factor, int64_t n, const OutRow& to) {
  const VF f = hn::Set(DF(), factor);
  ForVectors(n, [&](auto at) { Store(at, hn::Mul(f, Load(at, from)), to); });
}

// 2^x for x <= 0 (or barely above), within 2 ulp; below 2^-126 it stays there. NaN stays NaN. Minimax polynomial on [-1/2, 1/2].
HWY_INLINE VF Exp2NonPositive(VF x) {
  const DF d;
  const DI di;
  x = hn::Max(hn::Set(d, -126.0f), x);
  const VF n = hn::Round(x), r = hn::Sub(x, n);
  VF p = hn::Set(d, 1.53533620e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.33988750e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 9.61843692e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.55033237e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 2.40226477e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 6.93147182e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::ConvertTo(di, n))));
}

// to [columns][rows] = from [rows][columns] transposed; both are multiples of 4.
inline void TransposeBlock(ConstBlock from, int64_t rows, int64_t columns, float* to) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t j = 0; j < rows; ++j) {
    for (int64_t i = 0; i < columns; ++i) to[i * rows + j] = from.data[j * from.stride + i];
  }
#else
  const hn::FixedTag<float, 4> d4;
  for (int64_t j = 0; j < rows; j += 4) {
    const float* row = from.data + j * from.stride;
    for (int64_t i = 0; i < columns; i += 4) {
      const auto a = hn::LoadU(d4, row + i), b = hn::LoadU(d4, row + from.stride + i);
      const auto c = hn::LoadU(d4, row + 2 * from.stride + i), e = hn::LoadU(d4, row + 3 * from.stride + i);
      const auto ac = hn::InterleaveLower(d4, a, c), be = hn::InterleaveLower(d4, b, e);
      const auto ac_high = hn::InterleaveUpper(d4, a, c), be_high = hn::InterleaveUpper(d4, b, e);
      float* out = to + i * rows + j;
      hn::StoreU(hn::InterleaveLower(d4, ac, be), d4, out);
      hn::StoreU(hn::InterleaveUpper(d4, ac, be), d4, out + rows);
      hn::StoreU(hn::InterleaveLower(d4, ac_high, be_high), d4, out + 2 * rows);
      hn::StoreU(hn::InterleaveUpper(d4, ac_high, be_high), d4, out + 3 * rows);
    }
  }
#endif
}

// What a vector of queries sees of a block: keys below `all` are seen by all of them, keys from `some` on by none.
struct LaneSight {
  hn::Vec<DI> count;
  int64_t all, some;
  LaneSight(const BlockSight& b, int64_t first)
      : count(hn::Iota(DI(), static_cast<int32_t>(b.base + first))),
        all(first + LanesF() <= b.rows ? b.Seen(first) : 0),
        some(first < b.rows ? b.Seen(std::min(first + LanesF(), b.rows) - 1) : 0) {
    const hn::Vec<DI> inside = hn::Set(DI(), static_cast<int32_t>(b.rows - first));
    count = hn::IfThenElseZero(hn::Gt(inside, hn::Iota(DI(), 0)), count);
  }
  hn::Mask<DF> Sees(int64_t key) const { return hn::RebindMask(DF(), hn::Gt(count, hn::Set(DI(), static_cast<int32_t>(key)))); }
};

// The same of a block whose queries see what the bits say: bit i of masks[j * stride] stands for query i and key j.
struct MaskedSight : BlockSight {
  const uint64_t* masks;
  int64_t stride;
  uint64_t each = ~uint64_t{0}, any = 0;  // bit i: query i sees all keys of the block, or one of them
  MaskedSight(const BlockSight& block, const uint64_t* bits, int64_t words) : BlockSight(block), masks(bits), stride(words) {
    for (int64_t j = 0; j < n; ++j) {
      each &= masks[j * stride];
      any |= masks[j * stride];
    }
  }
};
struct MaskedLanes {
  const MaskedSight& sight;
  int64_t first, all, some;
  hn::Vec<DI> bit;
  hn::Mask<DF> sees_none;
  MaskedLanes(const MaskedSight& s, int64_t at) : sight(s), first(at), bit(hn::Shl(hn::Set(DI(), 1), hn::Iota(DI(), 0))) {
    const uint64_t lanes = (uint64_t{1} << LanesF()) - 1;
    all = (s.each >> at & lanes) == lanes ? s.n : 0;
    some = (s.any >> at & lanes) != 0 ? s.n : 0;
    sees_none = WhereSet(~s.any);
  }
  hn::Mask<DF> Sees(int64_t key) const {
#if HWY_TARGET <= HWY_AVX3
    return hn::LoadMaskBits(DF(), reinterpret_cast<const uint8_t*>(sight.masks + key * sight.stride) + first / 8);
#else
    return WhereSet(sight.masks[key * sight.stride]);
#endif
  }
  hn::Mask<DF> WhereSet(uint64_t mask) const {
    return hn::RebindMask(DF(), hn::TestBit(hn::Set(DI(), static_cast<int32_t>(mask >> first & 0xffff)), bit));
  }
};
inline LaneSight LanesOf(const BlockSight& sight, int64_t first) { return LaneSight(sight, first); }
inline MaskedLanes LanesOf(const MaskedSight& sight, int64_t first) { return MaskedLanes(sight, first); }

// What brings sums to a new largest score. NaN, where all scores of a query are: then its result says so. A query that sees no key of a
// block, perhaps none so far, keeps what it has.
inline VF FactorTo(const LaneSight&, VF before, VF top) { return Exp2NonPositive(hn::Sub(before, top)); }
inline VF FactorTo(const MaskedLanes& lanes, VF before, VF top) {
  return hn::IfThenElse(lanes.sees_none, hn::Set(DF(), 1.0f), Exp2NonPositive(hn::Sub(before, top)));
}

// Running softmax of a block of queries: the largest score so far times log2(e), the sum of e^(score - largest), and the factor
// that brings earlier sums to the newest largest score.
struct SoftmaxState {
  float *top, *sum, *factor;  // [kQueryBlock] each
};

// s [key][Wide()] raw scores -> e^(scale s - largest), zeros where a key is not seen, up to an even number of keys.
// log2_scale = scale log2(e) > 0. A query that has seen no key yet keeps -inf.
template <class Sight>
void SoftmaxColumns(float* s, const Sight& sight, float log2_scale, const SoftmaxState& state) {
  const DF d;
  const int64_t even = (sight.n + 1) / 2 * 2, wide = sight.Wide();
  const VF scale = hn::Set(d, log2_scale), lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (int64_t v = 0; v < wide; v += LanesF()) {
    const auto lanes = LanesOf(sight, v);
    float* column = s + v;
    const auto at = [=](int64_t key) { return column + key * wide; };
    for (int64_t j = lanes.some; j < even; ++j) StoreF(hn::Zero(d), at(j));
    if (lanes.some == 0) {
      StoreF(hn::Set(d, 1.0f), state.factor + v);
      continue;
    }
    VF top = lowest;
    for (int64_t j = 0; j < lanes.all; ++j) top = hn::Max(top, LoadF(at(j)));
    for (int64_t j = lanes.all; j < lanes.some; ++j) top = hn::Max(top, hn::IfThenElse(lanes.Sees(j), LoadF(at(j)), lowest));
    const VF before = LoadF(state.top + v);
    top = hn::Max(before, hn::Mul(scale, top));
    VF sum = hn::Zero(d);
    for (int64_t j = 0; j < lanes.all; ++j) {
      const VF p = Exp2NonPositive(hn::MulSub(scale, LoadF(at(j)), top));
      StoreF(p, at(j));
      sum = hn::Add(sum, p);
    }
    for (int64_t j = lanes.all; j < lanes.some; ++j) {
      const VF p = hn::IfThenElseZero(lanes.Sees(j), Exp2NonPositive(hn::MulSub(scale, LoadF(at(j)), top)));
      StoreF(p, at(j));
      sum = hn::Add(sum, p);
    }
    const VF factor = FactorTo(lanes, before, top);
    StoreF(top, state.top + v);
    StoreF(factor, state.factor + v);
    StoreF(hn::MulAdd(LoadF(state.sum + v), factor, sum), state.sum + v);
  }
}

// s raw scores -> p = e^(scale s - lse), dp -> ds = scale p (dp - dot); zeros where a key is not seen, up to an even number of keys.
// lse is times log2(e).
template <class Sight>
void SoftmaxGradient(float* s, float* dp, const Sight& sight, float scale, const float* lse, const float* dot) {
  const DF d;
  const int64_t even = (sight.n + 1) / 2 * 2, wide = sight.Wide();
  const VF log2_scale = hn::Set(d, scale * kLog2E), scales = hn::Set(d, scale);
  for (int64_t v = 0; v < wide; v += LanesF()) {
    const auto lanes = LanesOf(sight, v);
    const VF shift = LoadF(lse + v), shared = LoadF(dot + v);
    const auto step = [&](int64_t j, auto mask) {
      float *score = s + j * wide + v, *grad = dp + j * wide + v;
      const VF p = mask(Exp2NonPositive(hn::MulSub(log2_scale, LoadF(score), shift)));
      StoreF(p, score);
      StoreF(mask(hn::Mul(hn::Mul(p, scales), hn::Sub(LoadF(grad), shared))), grad);
    };
    for (int64_t j = 0; j < lanes.all; ++j) step(j, [](VF x) { return x; });
    for (int64_t j = lanes.all; j < lanes.some; ++j) step(j, [&](VF x) { return hn::IfThenElseZero(lanes.Sees(j), x); });
    for (int64_t j = lanes.some; j < even; ++j) {
      StoreF(hn::Zero(d), s + j * wide + v);
      StoreF(hn::Zero(d), dp + j * wide + v);
    }
  }
}

// ---- the two ways to multiply. Steps: elements of a sum in one 32-bit element of a block.

// F32 blocks. With rounds set, what is multiplied after the softmax is rounded to BF16, as the other path rounds it.
struct F32Path {
  using Element = float;
  static constexpr int64_t kStep = 1;
  bool rounds;

  static void Product(const BlockSizes& sizes, BlockLeft a, ConstBlock b, Block c, Into into, const float* factor = nullptr) {
    BlockProduct(sizes, a, b, c, into, factor);
  }
  // scores [keys][Wide()] as left factors: (query, key) and (key, query). They may stand in the scores' own place.
  BlockLeft ByQuery(float* scores, const BlockSight& sight, float*) const {
    Round(scores, sight);
    return {scores, 1, sight.Wide()};
  }
  BlockLeft ByKey(float* scores, const BlockSight& sight, float*) const {
    Round(scores, sight);
    return {scores, sight.Wide(), 1};
  }
  // Rows as right factors, summed over rows: as they are.
  static void Interleave(ConstBlock from, int64_t rows, int64_t columns, Block to) {
    if (from.data == to.data) return;
    for (int64_t i = 0; i < rows; ++i) std::copy_n(from.data + i * from.stride, columns, to.data + i * to.stride);
  }

 private:
  void Round(float* scores, const BlockSight& sight) const {
    if (!rounds) return;
    const DU du;
    for (int64_t i = 0; i < sight.n * sight.Wide(); i += LanesF()) {
      StoreF(hn::BitCast(DF(), hn::And(RoundedBits(LoadF(scores + i)), hn::Set(du, 0xffff0000u))), scores + i);
    }
  }
};

// Pairs of BF16, for CPUs that multiply them directly.
struct PairPath {
  using Element = BF16;
  static constexpr int64_t kStep = 2;

  static void Product(const BlockSizes& sizes, BlockLeft a, ConstBlock b, Block c, Into into, const float* factor = nullptr) {
    BlockPairProduct(sizes, a, b, c, into, factor);
  }
  static BlockLeft ByQuery(const float* scores, const BlockSight& sight, float* to) {
    const DU du;
    const int64_t wide = sight.Wide();
    for (int64_t j = 0; j < sight.n; j += 2) {
      for (int64_t i = 0; i < wide; i += LanesF()) {
        const auto low = hn::ShiftRight<16>(RoundedBits(LoadF(scores + j * wide + i)));
        const auto high = hn::And(RoundedBits(LoadF(scores + (j + 1) * wide + i)), hn::Set(du, 0xffff0000u));
        StoreF(hn::BitCast(DF(), hn::Or(low, high)), to + j / 2 * wide + i);
      }
    }
    return {to, 1, wide};
  }
  static BlockLeft ByKey(const float* scores, const BlockSight& sight, float* to) {
    BF16* out = reinterpret_cast<BF16*>(to);
    for (int64_t i = 0; i < sight.n * sight.Wide(); i += LanesF()) StoreF(LoadF(scores + i), out + i);
    return {to, sight.Wide() / 2, 1};
  }
  // from [rows][columns] BF16 -> to [ceil(rows/2)][columns] pairs of neighbouring rows; a last odd row pairs with zeros.
  static void Interleave(ConstBlock from, int64_t rows, int64_t columns, Block to) {
    const DU du;
    const hn::Rebind<uint16_t, DF> d16;
    const auto row = [&](int64_t i) { return reinterpret_cast<const uint16_t*>(from.data + i * from.stride); };
    for (int64_t i = 0; i < rows; i += 2) {
      for (int64_t c = 0; c < columns; c += LanesF()) {
        auto pair = hn::PromoteTo(du, hn::LoadU(d16, row(i) + c));
        if (i + 1 < rows) pair = hn::Or(pair, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(d16, row(i + 1) + c))));
        StoreF(hn::BitCast(DF(), pair), to.data + i / 2 * to.stride + c);
      }
    }
  }
};

template <class Path>
constexpr int64_t Steps(int64_t n) {
  return (n + Path::kStep - 1) / Path::kStep;
}

// Row i of a block of Path's elements.
template <class Path>
HWY_INLINE typename Path::Element* ElementRow(const Block& b, int64_t i) {
  return reinterpret_cast<typename Path::Element*>(b.data + i * b.stride);
}

// Distance between rows of n elements in a block.
template <class Path>
constexpr int64_t RowStride(int64_t n) {
  return PadBlock(Steps<Path>(n));
}

template <class Path>
void ZeroTail(const Block& to, int64_t row, int64_t columns) {
  auto* p = ElementRow<Path>(to, row);
  std::memset(p + columns, 0, static_cast<size_t>(to.stride * Path::kStep - columns) * sizeof(*p));
}

// Rows [first, first + n) of `columns` columns; zeros beside and behind them, up to `rows` rows.
template <class Path>
void LoadRows(const ConstView& from, int64_t first, int64_t n, int64_t column, int64_t columns, int64_t rows, Block to) {
  for (int64_t i = 0; i < n; ++i) {
    PrefetchRow(from, first + i + kRowsAhead, column, columns);
    CopyRow(RowAt(from, first + i, column), columns, ElementRow<Path>(to, i));
    ZeroTail<Path>(to, i, columns);
  }
  std::fill(to.data + n * to.stride, to.data + rows * to.stride, 0.0f);
}

// scores [keys][Wide()] = keys queries^T where they are seen. keys [n][width], queries_t [Steps(width)][Wide()].
template <class Path>
void ScoreBlock(const BlockSight& sight, int64_t width, ConstBlock keys, const float* queries_t, float* scores) {
  const int64_t last = sight.Seen(sight.rows - 1), group = sight.Whole() ? kKeyBlock : kTriangleStep;
  for (int64_t j = 0; j < last; j += group) {
    const int64_t begin = std::max<int64_t>(0, j - sight.base + 1) / kBlockPad * kBlockPad;
    Path::Product({std::min(group, last - j), sight.rows - begin, Steps<Path>(width)}, {keys.data + j * keys.stride, keys.stride, 1},
                  ConstBlock(queries_t + begin, sight.Wide()), {scores + j * sight.Wide() + begin, sight.Wide()}, Into::kOverwrite);
  }
}

// out [rows][n] = factor out + p right, summed over the keys that are seen; p (query, key), right [Steps(keys)][n].
template <class Path>
void SumOverKeys(const BlockSight& sight, int64_t n, BlockLeft p, ConstBlock right, Block out, Into into, const float* factor = nullptr) {
  const int64_t group = sight.Whole() ? kQueryBlock : kTriangleStep;
  for (int64_t i = 0; i < sight.rows; i += group) {
    const int64_t rows = std::min(group, sight.rows - i), seen = sight.Seen(i + rows - 1);
    if (seen == 0) continue;
    Path::Product({rows, n, Steps<Path>(seen)}, {p.data + i * p.row, p.row, p.col}, right, {out.data + i * out.stride, out.stride}, into,
                  factor == nullptr ? nullptr : factor + i);
  }
}

// out [keys][n] += p right, summed over the queries that see a key; p (key, query), right [Steps(rows)][n].
template <class Path>
void SumOverQueries(const BlockSight& sight, int64_t n, BlockLeft p, ConstBlock right, Block out) {
  const int64_t last = sight.Seen(sight.rows - 1), group = sight.Whole() ? kKeyBlock : kTriangleStep;
  for (int64_t j = 0; j < last; j += group) {
    const int64_t begin = std::max<int64_t>(0, j - sight.base + 1) / Path::kStep;
    Path::Product({std::min(group, last - j), n, Steps<Path>(sight.rows) - begin}, {p.data + j * p.row + begin * p.col, p.row, p.col},
                  ConstBlock(right.data + begin * right.stride, right.stride), {out.data + j * out.stride, out.stride}, Into::kAdd);
  }
}

// f(path) with the way to multiply: pairs where the CPU has them and all operands are BF16; else F32, rounding if bf16 is set.
template <class F>
void WithPath(bool pairs, bool bf16, const F& f) {
#if HWY_TARGET == HWY_AVX3_DL
  if (pairs) return f(PairPath());
#else
  (void)pairs;
#endif
  f(F32Path{bf16});
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif
