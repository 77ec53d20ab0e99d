#include "fathom/optim/muon.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "fathom/kernels/elementwise/adamw.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/kernels/gemm/gemm.h"

namespace fathom {
namespace {

constexpr int kRounds = 5;
constexpr float kLinear = 3.4445f, kCubic = -4.775f, kQuintic = 2.0315f;

float Narrow(double x) { return static_cast<float>(x); }

// The new momentum goes to m; u gets it with the gradient once more, each corrected for having begun at zero.
void LookAhead(const MuonStep& s, const MuonTensors& x, View u) {
  const double t = static_cast<double>(s.t), gradient = (1 - s.beta) * s.grad_scale;
  Cast(x.m, u);
  Scale(Narrow(s.beta), u);
  AddScaled(Narrow(gradient), x.g, u);
  ScaleInto(1, u, x.m, s.rounding.WithKey(s.rounding.key ^ 0x9e3779b9u));
  Scale(Narrow(s.beta / (1 - std::pow(s.beta, t + 1))), u);
  AddScaled(Narrow(gradient / (1 - std::pow(s.beta, t))), x.g, u);
}

// y = the next of the sequence after x [N,K]; the polynomial's square matrix is as small as it can be.
void NewtonSchulz(ConstView x, View y, Arena& scratch) {
  ArenaScope scope(scratch);
  const int64_t n = x.dim(0), k = x.dim(1), small = std::min(n, k);
  const View gram = scratch.Alloc(DType::kF32, {small, small}), polynomial = scratch.Alloc(DType::kF32, {small, small});
  if (n <= k)
    MatMulNT(x, {x, {}}, gram, Write::kOverwrite, scratch);
  else
    MatMulTN(x, x, gram, Write::kOverwrite, scratch);
  MatMulNT(gram, {gram, {}}, polynomial, Write::kOverwrite, scratch);  // it is symmetric
  Scale(kQuintic, polynomial);
  AddScaled(kCubic, gram, polynomial);
  if (n <= k)
    MatMulNN(polynomial, {x, {}}, y, Write::kOverwrite, scratch);
  else
    MatMulNT(x, {polynomial, {}}, y, Write::kOverwrite, scratch);
  AddScaled(kLinear, x, y);
}

double UpdateScale(const MuonStep& s, int64_t n, int64_t k) {
  const auto out = static_cast<double>(n), in = static_cast<double>(k);
  return s.consistent_rms ? std::sqrt(std::max(out, in)) * *s.consistent_rms : std::sqrt(std::max(1.0, out / in));
}

}  // namespace

namespace {

// The matrix whose singular values count: of this rank's part and all others.
void LookAheadOfAll(const MuonStep& step, const MuonTensors& tensors, View x, Arena& scratch) {
  if (tensors.ranks == nullptr) return LookAhead(step, tensors, x);
  ArenaScope scope(scratch);
  const View own = scratch.Alloc(DType::kF32, tensors.w.shape());
  LookAhead(step, tensors, own);
  tensors.ranks->Gather(own, x, scratch);
}

// Contiguous.
View OwnPart(const MuonTensors& tensors, View x, Arena& scratch) {
  if (tensors.ranks == nullptr) return x;
  const View own = scratch.Alloc(DType::kF32, tensors.w.shape());
  Cast(tensors.ranks->OwnPart(x), own);
  return own;
}

}  // namespace

void MuonUpdate(const MuonStep& step, const MuonTensors& tensors, Arena& scratch) {
  ArenaScope scope(scratch);
  const Shape whole = tensors.ranks == nullptr ? tensors.w.shape() : tensors.ranks->whole();
  const int64_t n = whole[0], k = whole[1];
  View x = scratch.Alloc(DType::kF32, {n, k}), y = scratch.Alloc(DType::kF32, {n, k});
  LookAheadOfAll(step, tensors, x, scratch);
  Scale(Narrow(1 / (std::sqrt(SumSquares(x.Reshape({n * k}))) + step.eps)), x);
  for (int round = 0; round < kRounds; ++round) {
    NewtonSchulz(x, y, scratch);
    std::swap(x, y);
  }
  x = OwnPart(tensors, x, scratch);
  const auto flat = [&](const View& view) { return view.empty() ? View() : view.Reshape({view.NumElements()}); };
  SgdUpdate({Narrow(step.learning_rate), Narrow(step.weight_decay), Narrow(UpdateScale(step, n, k)), step.rounding}, flat(tensors.w),
            flat(x), flat(tensors.bf16_copy));
}

int64_t MuonScratchBytes(int64_t n, int64_t k, bool is_part) {
  constexpr int64_t kSlack = 4096;  // of alignment
  const int64_t small = std::min(n, k), products = std::max(GemmScratchBytes(n, k, small), GemmScratchBytes(small, small, std::max(n, k)));
  return (2 * (n * k + small * small) + (is_part ? 2 * n * k : 0)) * DTypeSize(DType::kF32) + products + kSlack;
}

}  // namespace fathom
