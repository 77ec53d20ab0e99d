#include "fathom/layers/attention_cost.h"

#include "fathom/kernels/gemm/block_product.h"
#include "fathom/kernels/simd/simd.h"

namespace fathom {
namespace {

// Multiply-adds of a head, a query and a key: scores and values, and in the backward dP, dV, dQ and dK.
double SharedProducts(AttentionPass pass, const MlaShape& s) {
  const int64_t width = s.nope_dim + s.rope_dim;
  return static_cast<double>(pass == AttentionPass::kForward ? width + s.v_dim : 3 * width + 2 * s.v_dim);
}
double AbsorbedProducts(AttentionPass pass, const ChosenWork& w) {
  const int64_t width = w.rank + w.shape.rope_dim;
  return static_cast<double>(pass == AttentionPass::kForward ? width + w.rank : 3 * width + 3 * w.rank);
}
// Of a head and a query: into the latent space and out of it; in the backward the gradients of both and of the weights.
double LatentProducts(AttentionPass pass, const ChosenWork& w) {
  const MlaShape& s = w.shape;
  return static_cast<double>(w.rank * (pass == AttentionPass::kForward ? s.nope_dim + s.v_dim : 3 * s.nope_dim + 2 * s.v_dim));
}

}  // namespace

FormRates MeasuredRates(DType compute, AttentionPass pass) {
  const bool pairs = compute == DType::kBF16 && HasNativeBF16();
  if (pass == AttentionPass::kForward) return pairs ? FormRates{0.85, 16000, 10000} : FormRates{1, 30000, 10000};
  return pairs ? FormRates{1.07, 44000, 30000} : FormRates{1.5, 60000, 30000};
}

double AbsorbedCost(const FormRates& rates, AttentionPass pass, const ChosenWork& w) {
  const auto heads = static_cast<double>(w.shape.heads);
  const double per_key = rates.absorbed_row + rates.absorbed_product * heads * AbsorbedProducts(pass, w);
  return static_cast<double>(w.chosen) * per_key + static_cast<double>(w.queries) * heads * LatentProducts(pass, w);
}

// Queries fill whole vectors.
double SharedCost(const FormRates& rates, AttentionPass pass, const ChosenWork& w, int64_t rows) {
  const MlaShape& s = w.shape;
  const double made = w.expansions * static_cast<double>(w.rank * (s.nope_dim + s.v_dim));
  const double per_head = rates.shared_row + made + static_cast<double>(PadBlock(w.queries)) * SharedProducts(pass, s);
  return static_cast<double>(rows * s.heads) * per_head;
}

int64_t MostSharedRows(const FormRates& rates, AttentionPass pass, const ChosenWork& w) {
  return static_cast<int64_t>(AbsorbedCost(rates, pass, w) / SharedCost(rates, pass, w, 1));
}

}  // namespace fathom
