#include "fathom/layers/row_exchange.h"

#include <algorithm>
#include <utility>

#include "fathom/base/plan_scope.h"
#include "fathom/parallel/beside.h"

namespace fathom {

void RowExchange::Count() {
  const int64_t n = comm_.size(), each = std::ssize(held_.begin) - 1;
  std::vector<int64_t> sent;  // [E]
  for (size_t e = 0; e + 1 < begin_.size(); ++e) sent.push_back(begin_[e + 1] - begin_[e]);
  std::vector<std::span<const std::byte>> to;
  std::vector<std::span<std::byte>> from;
  for (int64_t r = 0; r < n; ++r) {
    const auto at = static_cast<size_t>(r * each), count = static_cast<size_t>(each);
    to.push_back(BytesOf(std::span<const int64_t>(sent).subspan(at, count)));
    from.push_back(BytesOf(held_.counts.subspan(at, count)));
    if (PlanScope::Active()) std::copy_n(sent.begin() + (PlanScope::IsEven() ? r * each : 0), count, held_.counts.begin() + r * each);
  }
  comm_.AllToAll(to, from);
  held_.begin[0] = 0;
  for (int64_t e = 0; e < each; ++e) {
    int64_t& end = held_.begin[static_cast<size_t>(e + 1)];
    end = held_.begin[static_cast<size_t>(e)];
    for (int64_t r = 0; r < n; ++r) end += held_.counts[static_cast<size_t>(r * each + e)];
  }
}

// f(r, self, mine, held) for every rank r and expert of this rank: the rows `mine` of its expert with the same number, and the rows `held`
// that are from there.
template <class F>
void RowExchange::ForBlocks(const F& f) const {
  const auto n = static_cast<size_t>(comm_.size()), each = held_.begin.size() - 1, me = static_cast<size_t>(comm_.rank());
  struct Rows {
    int64_t begin, end;
  };
  for (size_t e = 0; e < each; ++e) {
    int64_t at = held_.begin[e];
    for (size_t r = 0; r < n; ++r) {
      const int64_t count = held_.counts[r * each + e];
      const Rows mine{begin_[r * each + e], begin_[r * each + e + 1]};
      f(static_cast<int>(r), r == me, mine, Rows{at, at + count});
      at += count;
    }
  }
}

// A block of rows for each expert of the other ranks, of which all have the same share.
void RowExchange::CountEven(int64_t row_bytes) const {
  const int64_t n = comm_.size(), rows = begin_.back(), experts = std::ssize(begin_) - 1;
  comm_.CountSpread(rows * (n - 1) / n * row_bytes, std::min(rows, experts) * (n - 1) / n);
}

void RowExchange::Send(std::vector<Outgoing> out, std::vector<Incoming> in, Beside* beside) const {
  if (beside == nullptr) return comm_.Exchange(out, in);
  beside->Begin([out = std::move(out), in = std::move(in)](const Comm& comm) { comm.Exchange(out, in); });
}

void RowExchange::ToExperts(ConstView rows, View to, Beside* beside) const {
  if (PlanScope::Active()) return CountEven(rows.dim(1) * DTypeSize(rows.dtype()));
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  ForBlocks([&](int r, bool self, const auto& mine, const auto& held) {
    const ConstView from = rows.Rows(mine.begin, mine.end);
    const View place = to.Rows(held.begin, held.end);
    if (self) return Cast(from, place);
    if (mine.end > mine.begin) out.push_back({r, BytesOf(from)});
    if (held.end > held.begin) in.push_back({r, BytesOf(place)});
  });
  Send(std::move(out), std::move(in), beside);
}

void RowExchange::FromExperts(ConstView rows, View to, Beside* beside) const {
  if (PlanScope::Active()) return CountEven(rows.dim(1) * DTypeSize(rows.dtype()));
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  ForBlocks([&](int r, bool self, const auto& mine, const auto& held) {
    const ConstView from = rows.Rows(held.begin, held.end);
    const View place = to.Rows(mine.begin, mine.end);
    if (self) return Cast(from, place);
    if (held.end > held.begin) out.push_back({r, BytesOf(from)});
    if (mine.end > mine.begin) in.push_back({r, BytesOf(place)});
  });
  Send(std::move(out), std::move(in), beside);
}

}  // namespace fathom
