#if defined(FATHOM_KERNELS_BLOCK_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_BLOCK_PRODUCT_INL_H_
#undef FATHOM_KERNELS_BLOCK_PRODUCT_INL_H_
#else
#define FATHOM_KERNELS_BLOCK_PRODUCT_INL_H_
#endif

#include <hwy/highway.h>

#include "fathom/kernels/gemm/block_product.h"

namespace fathom {
namespace HWY_NAMESPACE {

// c [m,n] = a b, c + a b, or factor_i c_i + a b (row by row), with a [m,k] and b [k,n]. n is rounded up to whole vectors: rows of b and c
// must be readable and writable up to PadBlock(n). Every element is one chain of multiply-adds over k from zero, added to c at the end, so
// its bits do not depend on which rows and columns are computed with it.
void BlockProduct(const BlockSizes& sizes, BlockLeft a, ConstBlock b, Block c, Into into, const float* factor = nullptr);

// The same over pairs of BF16 (k counts pairs), summed in f32. Only where HasNativeBF16().
void BlockPairProduct(const BlockSizes& sizes, BlockLeft a, ConstBlock b, Block c, Into into, const float* factor = nullptr);

}  // namespace HWY_NAMESPACE
}  // namespace fathom

#endif
