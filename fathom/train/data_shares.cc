#include "fathom/train/data_shares.h"

#include <algorithm>
#include <set>

#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {
namespace {

constexpr int64_t kTogether = int64_t{1} << 24;  // bytes of a rank's rows that are received at a time, or one matrix's

}  // namespace

DataShares::DataShares(const Placement& placement, DecoderParams& params, DecoderParams& compute, DecoderParams& grads)
    : comm_(placement.sharding().mesh().comm(Axis::kData)) {
  std::set<const std::byte*> seen;
  int64_t together = 0, most = 0;
  for (const auto& [param, grad] : ListParams(grads)) {
    if (!placement.SharesMoments(*param) || !seen.insert(grad->value.view().raw()).second) continue;
    SharedMatrix m{grad->value.mutable_view(), params[*param].value.mutable_view(), View(), {}};
    if (placement.treatments().HasBF16Copy(*param)) m.copy = compute[*param].value.mutable_view();
    const int64_t first = placement.Kept(*param).row_begin;
    for (int r = 0; r < comm_.size(); ++r) m.rows.push_back(placement.UpdatedBy(*param, r).row_begin - first);
    m.rows.push_back(m.grad.dim(0));
    const int64_t bytes = RowsOf(m, m.grad, comm_.rank()).NumBytes();
    if (together > 0 && together + bytes > kTogether) {
      groups_.push_back(list_.size());
      together = 0;
    }
    together += bytes;
    most = std::max(most, together);
    list_.push_back(std::move(m));
  }
  if (list_.empty()) return;
  groups_.push_back(list_.size());
  received_ = Tensor(DType::kF32, {most / DTypeSize(DType::kF32) * (comm_.size() - 1)});
}

View DataShares::RowsOf(const SharedMatrix& m, const View& whole, int rank) const {
  const auto r = static_cast<size_t>(rank);
  return whole.Rows(m.rows[r], m.rows[r + 1]);
}

void DataShares::SumGroup(size_t begin, size_t end) {
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  std::vector<View> pieces;  // by matrix and rank
  std::byte* at = received_.mutable_view().raw();
  for (size_t i = begin; i < end; ++i) {
    const View mine = RowsOf(list_[i], list_[i].grad, comm_.rank());
    for (int r = 0; r < comm_.size(); ++r) {
      if (r == comm_.rank()) {
        pieces.push_back(mine);
        continue;
      }
      pieces.emplace_back(at, DType::kF32, mine.shape());
      at += mine.NumBytes();
      out.push_back({r, BytesOf(ConstView(RowsOf(list_[i], list_[i].grad, r)))});
      in.push_back({r, BytesOf(pieces.back())});
    }
  }
  comm_.Exchange(out, in);
  const auto n = static_cast<size_t>(comm_.size()), me = static_cast<size_t>(comm_.rank());
  for (size_t i = 0; i < end - begin; ++i) {
    for (size_t r = 1; r < n; ++r) AddScaled(1, pieces[i * n + r], pieces[i * n]);
    if (me != 0) Cast(pieces[i * n], pieces[i * n + me]);
  }
}

void DataShares::SumGradients() {
  for (size_t begin = 0; const size_t end : groups_) {
    SumGroup(begin, end);
    begin = end;
  }
}

void DataShares::GatherValues() const {
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  for (const SharedMatrix& m : list_) {
    for (int r = 0; r < comm_.size(); ++r) {
      if (r == comm_.rank()) continue;
      out.push_back({r, BytesOf(ConstView(RowsOf(m, m.value, comm_.rank())))});
      in.push_back({r, BytesOf(RowsOf(m, m.value, r))});
    }
  }
  comm_.Exchange(out, in);
  for (const SharedMatrix& m : list_) {
    for (int r = 0; r < comm_.size(); ++r) {
      if (r != comm_.rank() && !m.copy.empty()) Cast(RowsOf(m, m.value, r), RowsOf(m, m.copy, r));
    }
  }
}

}  // namespace fathom
