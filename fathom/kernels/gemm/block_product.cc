#include "fathom/kernels/gemm/block_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/gemm/block_product.cc"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "fathom/kernels/gemm/block_product-inl.h"
#include "fathom/kernels/simd/multiply_add-inl.h"
#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// Accumulators per tile: 6 x 4 or 12 x 2 of 32 vector registers, 6 x 2 of 16; fewer would wait for one another.
constexpr int kVectors = HWY_MAX_BYTES == 64 ? 4 : 2;
constexpr int RowsOf(int vectors) { return vectors * 2 <= kVectors ? 12 : 6; }

struct TileArgs {
  int64_t k;
  BlockLeft a;
  ConstBlock b;
  Block c;
  Into into;
  const float* factor;
};

template <class Kind, int kM, int kN>
HWY_INLINE void Tile(const TileArgs& t) {
  const DF d;
  const int64_t lanes = LanesF();
  VF sum[kM][kN];
#pragma GCC unroll 12
  for (int i = 0; i < kM; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kN; ++j) sum[i][j] = hn::Zero(d);
  }
  // Rows in groups within the reach of one register: twelve addresses are too many.
  constexpr int kReach = kM > 6 ? 3 : kM;
  const float* a[(kM + kReach - 1) / kReach];
#pragma GCC unroll 12
  for (int g = 0; g * kReach < kM; ++g) a[g] = t.a.data + g * kReach * t.a.row;
  const float* b = t.b.data;
  for (int64_t k = 0; k < t.k; ++k, b += t.b.stride) {
    VF right[kN];
#pragma GCC unroll 12
    for (int j = 0; j < kN; ++j) right[j] = hn::LoadU(d, b + j * lanes);
#pragma GCC unroll 12
    for (int i = 0; i < kM; ++i) {
      const VF left = hn::Set(d, a[i / kReach][i % kReach * t.a.row]);
#pragma GCC unroll 12
      for (int j = 0; j < kN; ++j) sum[i][j] = Kind::MulAdd(left, right[j], sum[i][j]);
    }
#pragma GCC unroll 12
    for (const float*& group : a) group += t.a.col;
  }
#pragma GCC unroll 12
  for (int i = 0; i < kM; ++i) {
    const VF factor = hn::Set(d, t.into == Into::kScaleAdd ? t.factor[i] : 1.0f);
#pragma GCC unroll 12
    for (int j = 0; j < kN; ++j) {
      float* c = t.c.data + i * t.c.stride + j * lanes;
      hn::StoreU(t.into == Into::kOverwrite ? sum[i][j] : hn::MulAdd(factor, hn::LoadU(d, c), sum[i][j]), d, c);
    }
  }
}

template <class Kind, int kM, int kN>
void LastTile(int64_t m, const TileArgs& t) {
  if constexpr (kM > 0) {
    if (m == kM) return Tile<Kind, kM, kN>(t);
    LastTile<Kind, kM - 1, kN>(m, t);
  }
}

// All m rows of kN vectors of columns.
template <class Kind, int kN>
void TileRows(int64_t m, TileArgs t) {
  constexpr int kM = RowsOf(kN);
  for (; m >= kM; m -= kM) {
    Tile<Kind, kM, kN>(t);
    t.a.data += kM * t.a.row;
    t.c.data += kM * t.c.stride;
    if (t.factor != nullptr) t.factor += kM;
  }
  LastTile<Kind, kM - 1, kN>(m, t);
}

template <class Kind>
void TileColumns(int64_t m, int64_t vectors, const TileArgs& t) {
  if constexpr (kVectors == 4) {
    if (vectors == 4) return TileRows<Kind, 4>(m, t);
    if (vectors == 3) return TileRows<Kind, 3>(m, t);
  }
  if (vectors == 2) return TileRows<Kind, 2>(m, t);
  TileRows<Kind, 1>(m, t);
}

template <class Kind>
void Product(int64_t m, int64_t n, const TileArgs& whole) {
  const int64_t lanes = LanesF(), vectors = (n + lanes - 1) / lanes;
  // Columns in equal parts: 6 vectors are 3 and 3, not 4 and 2.
  const int64_t parts = (vectors + kVectors - 1) / kVectors;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = vectors * part / parts, end = vectors * (part + 1) / parts;
    TileArgs columns = whole;
    columns.b.data += begin * lanes;
    columns.c.data += begin * lanes;
    TileColumns<Kind>(m, end - begin, columns);
  }
}

}  // namespace

void BlockProduct(const BlockSizes& sizes, BlockLeft a, ConstBlock b, Block c, Into into, const float* factor) {
  Product<F32>(sizes.m, sizes.n, {sizes.k, a, b, c, into, factor});
}

void BlockPairProduct(const BlockSizes& sizes, BlockLeft a, ConstBlock b, Block c, Into into, const float* factor) {
  Product<PairsOfBF16>(sizes.m, sizes.n, {sizes.k, a, b, c, into, factor});
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
