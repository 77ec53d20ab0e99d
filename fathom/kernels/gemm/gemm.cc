#include "fathom/kernels/gemm/gemm.h"

#include <algorithm>

#include "fathom/base/threads.h"
#include "fathom/base/trace.h"
#include "fathom/kernels/gemm/few_rows.h"
#include "fathom/kernels/gemm/gemm_tiles.h"

namespace fathom {
namespace {

bool IsActivation(const ConstView& v) { return v.rank() == 2 && (v.dtype() == DType::kF32 || v.dtype() == DType::kBF16); }

void CheckWeight(const WeightView& w) {
  const DType type = w.value.dtype();
  const bool plain = type == DType::kF32 || type == DType::kBF16 || type == DType::kF16;
  FATHOM_CHECK(w.value.rank() == 2 && (plain || type == DType::kF8E4M3), "weight {} {}", DTypeName(type), w.value.shape().ToString());
  if (plain) return;
  const int64_t rows = (w.value.dim(0) + kScaleBlock - 1) / kScaleBlock, columns = (w.value.dim(1) + kScaleBlock - 1) / kScaleBlock;
  FATHOM_CHECK(w.scale.rank() == 2 && w.scale.dim(0) == rows && w.scale.dim(1) == columns, "weight {} with scales {}",
               w.value.shape().ToString(), w.scale.shape().ToString());
}

// x [M, weight's columns] and y [M, weight's rows] for NT; the other way round for NN.
void CheckLinear(const ConstView& in, const WeightView& w, const View& out, int in_axis) {
  CheckWeight(w);
  FATHOM_CHECK(IsActivation(in) && IsActivation(out) && in.dim(0) == out.dim(0) && in.dim(1) == w.value.dim(in_axis) &&
                   out.dim(1) == w.value.dim(1 - in_axis),
               "in {} {}, weight {}, out {} {}", DTypeName(in.dtype()), in.shape().ToString(), w.value.shape().ToString(),
               DTypeName(out.dtype()), out.shape().ToString());
}

void CheckGroups(std::span<const int64_t> begin, size_t groups, int64_t rows) {
  FATHOM_CHECK(begin.size() == groups + 1 && begin.front() == 0 && begin.back() == rows, "{} groups, {} bounds, {} rows", groups,
               begin.size(), rows);
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

FewRowsProduct AsFewRows(const Product& p) { return {p.a.value, p.b, p.c, p.write}; }

// Products with few rows and the others, each kind together.
template <class F>
void RunForward(int64_t count, const F& product, Arena& scratch, Arithmetic arithmetic) {
  const auto is_few = [arithmetic](const Product& p) { return arithmetic == Arithmetic::kByRow || IsFewRows(p.a.value, p.b); };
  int64_t few = 0;
  for (int64_t e = 0; e < count; ++e) few += is_few(product(e)) ? 1 : 0;
  const auto of_kind = [&](bool wanted_few) {
    return [&product, &is_few, wanted_few](int64_t e) {
      Product p = product(e);
      if (is_few(p) == wanted_few) return p;
      p.m = 0;
      p.a.value = p.a.value.Rows(0, 0);
      p.c = p.c.Rows(0, 0);
      return p;
    };
  };
  if (few > 0)
    RunFewRows(
        count, [&](int64_t e) { return AsFewRows(of_kind(true)(e)); }, scratch);
  if (few < count) RunProducts(count, of_kind(false), scratch);
}

template <class V>
V Group(const V& v, std::span<const int64_t> begin, int64_t e) {
  return v.Rows(begin[static_cast<size_t>(e)], begin[static_cast<size_t>(e) + 1]);
}

// A product of `rows` rows of tokens with a weight, or with a part of them each of several that have one size.
void NoteWork(TraceSlice& slice, int64_t rows, const ConstView& in, const ConstView& weight, int64_t weights, const ConstView& out) {
  if (!slice.recorded()) return;
  slice.AddWork(2 * static_cast<double>(rows) * static_cast<double>(weight.NumElements()),
                static_cast<double>(in.NumBytes() + weights * weight.NumBytes() + out.NumBytes()));
}

// Groups that have rows.
int64_t UsedGroups(std::span<const int64_t> begin) {
  int64_t used = 0;
  for (size_t e = 0; e + 1 < begin.size(); ++e) used += begin[e] < begin[e + 1] ? 1 : 0;
  return used;
}

// The rows of later groups lie behind those of group e.
Product InGroups(Product p, std::span<const int64_t> begin, int64_t e) {
  p.rows_behind = begin.back() - begin[static_cast<size_t>(e) + 1];
  return p;
}

// The groups that have rows: few of many, where a token goes to 8 of 256 experts.
std::span<const int64_t> GroupsWithRows(std::span<const int64_t> begin, Arena& scratch) {
  const auto groups = std::ssize(begin) - 1;
  const std::span<int64_t> list = scratch.AllocSpan<int64_t>(groups);
  size_t n = 0;
  for (int64_t e = 0; e < groups; ++e) {
    if (begin[static_cast<size_t>(e)] < begin[static_cast<size_t>(e) + 1]) list[n++] = e;
  }
  return list.first(n);
}

}  // namespace

void MatMulNT(ConstView x, const WeightView& w, View y, Write write, Arena& scratch, Arithmetic arithmetic) {
  TraceSlice slice("product x W^T");
  NoteWork(slice, x.dim(0), x, w.value, 1, y);
  RunForward(
      1, [&](int64_t) { return ForwardProduct(x, w, y, write); }, scratch, arithmetic);
}

void MatMulNN(ConstView dy, const WeightView& w, View dx, Write write, Arena& scratch) {
  TraceSlice slice("product dy W");
  NoteWork(slice, dy.dim(0), dy, w.value, 1, dx);
  RunProducts(
      1, [&](int64_t) { return InputGradientProduct(dy, w, dx, write); }, scratch);
}

void MatMulTN(ConstView dy, ConstView x, View dw, Write write, Arena& scratch) {
  TraceSlice slice("product dy^T x");
  NoteWork(slice, dy.dim(0), dy, dw, 1, x);
  RunProducts(
      1, [&](int64_t) { return WeightGradientProduct(dy, x, dw, write); }, scratch);
}

void GroupedMatMulNT(ConstView x, std::span<const int64_t> begin, std::span<const WeightView> w, View y, Write write, Arena& scratch,
                     Arithmetic arithmetic) {
  CheckGroups(begin, w.size(), x.dim(0));
  const ArenaScope scope(scratch);
  const std::span<const int64_t> groups = GroupsWithRows(begin, scratch);
  TraceSlice slice("experts' products x W^T");
  NoteWork(slice, x.dim(0), x, w[0].value, std::ssize(groups), y);
  RunForward(
      std::ssize(groups),
      [&](int64_t i) {
        const int64_t e = groups[static_cast<size_t>(i)];
        return InGroups(ForwardProduct(Group(x, begin, e), w[static_cast<size_t>(e)], Group(y, begin, e), write), begin, e);
      },
      scratch, arithmetic);
}

void GroupedMatMulNN(ConstView dy, std::span<const int64_t> begin, std::span<const WeightView> w, View dx, Write write, Arena& scratch) {
  CheckGroups(begin, w.size(), dy.dim(0));
  const ArenaScope scope(scratch);
  const std::span<const int64_t> groups = GroupsWithRows(begin, scratch);
  TraceSlice slice("experts' products dy W");
  NoteWork(slice, dy.dim(0), dy, w[0].value, std::ssize(groups), dx);
  RunProducts(
      std::ssize(groups),
      [&](int64_t i) {
        const int64_t e = groups[static_cast<size_t>(i)];
        return InGroups(InputGradientProduct(Group(dy, begin, e), w[static_cast<size_t>(e)], Group(dx, begin, e), write), begin, e);
      },
      scratch);
}

void GroupedMatMulTN(ConstView dy, ConstView x, std::span<const int64_t> begin, std::span<const View> dw, Write write, Arena& scratch) {
  CheckGroups(begin, dw.size(), dy.dim(0));
  TraceSlice slice("experts' products dy^T x");
  NoteWork(slice, dy.dim(0), dy, dw[0], slice.recorded() ? UsedGroups(begin) : 0, x);
  RunProducts(
      std::ssize(dw),
      [&](int64_t e) {
        const View& d = dw[static_cast<size_t>(e)];
        return d.empty() ? Product{} : WeightGradientProduct(Group(dy, begin, e), Group(x, begin, e), d, write);
      },
      scratch);
}

int64_t GemmScratchBytes(int64_t rows, int64_t n, int64_t k) {
  (void)rows;
  const int64_t groups = kMostProducts * static_cast<int64_t>(sizeof(int64_t)) + 64;
  return groups + std::max(ProductScratchBytes(NumThreads()), FewRowsScratchBytes(NumThreads(), n, k));
}

}  // namespace fathom
