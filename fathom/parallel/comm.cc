#include "fathom/parallel/comm.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/base/plan_scope.h"
#include "fathom/base/pulse.h"
#include "fathom/base/trace.h"
#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {
namespace {

constexpr size_t kBucket = size_t{1} << 22;  // elements that are summed at a time

void Copy(std::span<const std::byte> from, std::span<std::byte> to) {
  FATHOM_CHECK(from.size() == to.size(), "{} bytes for {}", from.size(), to.size());
  if (!from.empty() && from.data() != to.data()) std::memcpy(to.data(), from.data(), from.size());
}

View ViewOfFloats(std::span<float> x) { return ViewOf(x.data(), {std::ssize(x)}); }

}  // namespace

std::span<const std::byte> BytesOf(ConstView x) {
  FATHOM_CHECK(x.contiguous(), "{}", x.shape().ToString());
  return {x.raw(), static_cast<size_t>(x.NumBytes())};
}
std::span<std::byte> BytesOf(View x) {
  FATHOM_CHECK(x.contiguous(), "{}", x.shape().ToString());
  return {x.raw(), static_cast<size_t>(x.NumBytes())};
}

std::vector<std::string> AllGatherText(const Comm& comm, const std::string& mine) {
  std::vector<int64_t> lengths(static_cast<size_t>(comm.size()));
  lengths[static_cast<size_t>(comm.rank())] = std::ssize(mine);
  comm.AllSum(std::span(lengths));
  std::vector<std::string> texts;
  for (const int64_t length : lengths) texts.emplace_back(static_cast<size_t>(length), '\0');
  std::vector<std::span<std::byte>> all;
  for (std::string& text : texts) all.push_back(BytesOf(std::span(text)));
  comm.AllGather(std::as_bytes(std::span(mine)), all);
  return texts;
}

Comm::Comm(std::shared_ptr<Transport> transport) : state_(std::make_shared<State>()) {
  state_->members.resize(static_cast<size_t>(transport->size()));
  std::iota(state_->members.begin(), state_->members.end(), 0);
  state_->rank = transport->rank();
  state_->transport = std::move(transport);
}

Comm Comm::Planned(int rank, int size, int host_ranks) {
  if (size == 1) return {};
  Comm comm;
  comm.state_ = std::make_shared<State>();
  comm.state_->members.resize(static_cast<size_t>(size));
  std::iota(comm.state_->members.begin(), comm.state_->members.end(), 0);
  comm.state_->rank = rank;
  comm.state_->host_ranks = host_ranks;
  return comm;
}

Comm Comm::Part(const std::vector<int>& ranks, const char* label) const {
  if (ranks.size() == 1) return {};
  Comm part;
  part.state_ = std::make_shared<State>();
  part.state_->transport = state_->transport;
  part.state_->channel = state_->channel;
  part.state_->label = label;
  part.state_->host_ranks = state_->host_ranks;
  for (const int r : ranks) {
    if (r == rank()) part.state_->rank = static_cast<int>(part.state_->members.size());
    part.state_->members.push_back(state_->members[static_cast<size_t>(r)]);
  }
  return part;
}

// Members of one host have numbers one behind the other.
bool Comm::IsFar(size_t r) const {
  const State& s = *state_;
  return s.members[r] / s.host_ranks != s.members[static_cast<size_t>(s.rank)] / s.host_ranks;
}

void Comm::Count(int to, int64_t bytes) const {
  Traffic& t = state_->traffic;
  t.bytes_sent += bytes;
  ++t.messages;
  if (!planned() || !IsFar(static_cast<size_t>(to))) return;
  t.far_bytes += bytes;
  ++t.far_messages;
}

void Comm::CountToAll(int64_t bytes) const {
  if (!planned()) return;
  for (int r = 0; r < size(); ++r) {
    if (r != rank()) Count(r, bytes);
  }
}

void Comm::CountSpread(int64_t bytes, int64_t messages) const {
  if (!planned()) return;
  int64_t far = 0;
  for (size_t r = 0; r < state_->members.size(); ++r) far += IsFar(r) ? 1 : 0;
  Traffic& t = state_->traffic;
  t.bytes_sent += bytes;
  t.messages += messages;
  t.far_bytes += bytes * far / (size() - 1);
  t.far_messages += messages * far / (size() - 1);
}

Comm Comm::InChannel(Channel channel) const {
  Comm other = *this;
  if (size() == 1) return other;
  other.state_ = std::make_shared<State>();
  other.state_->transport = state_->transport;
  other.state_->members = state_->members;
  other.state_->rank = state_->rank;
  other.state_->host_ranks = state_->host_ranks;
  other.state_->channel = channel;
  other.state_->label = state_->label;
  return other;
}

void Comm::AddTraffic(const Traffic& more) const {
  Traffic& t = state_->traffic;
  t.bytes_sent += more.bytes_sent;
  t.messages += more.messages;
  t.seconds += more.seconds;
  t.hidden_seconds += more.hidden_seconds;
}

void Comm::Exchange(std::span<const Outgoing> out, std::span<const Incoming> in) const {
  if (size() == 1) return;
  const Stopwatch clock;
  State& s = *state_;
  if (PlanScope::Active()) {
    for (const Outgoing& message : out) {
      if (planned()) Count(message.to, std::ssize(message.bytes));
    }
    return;
  }
  TraceSlice slice(s.label);
  s.out.clear();
  s.in.clear();
  for (const Outgoing& message : out) {
    FATHOM_CHECK(message.to != rank(), "a message to itself");
    s.out.push_back({s.members[static_cast<size_t>(message.to)], message.bytes});
    Count(message.to, std::ssize(message.bytes));
  }
  for (const Incoming& message : in) s.in.push_back({s.members[static_cast<size_t>(message.from)], message.bytes});
  for (const Outgoing& message : out) slice.AddWork(0, static_cast<double>(message.bytes.size()));
  for (const Incoming& message : in) slice.AddWork(0, static_cast<double>(message.bytes.size()));
  Pulse::Waiting(true);
  s.transport->Exchange(s.channel, s.out, s.in);
  Pulse::Waiting(false);
  s.traffic.seconds += clock.Seconds();
}

void Comm::Send(int to, std::span<const std::byte> bytes) const {
  const Outgoing message{to, bytes};
  Exchange({&message, 1}, {});
}

void Comm::Receive(int from, std::span<std::byte> bytes) const {
  const Incoming message{from, bytes};
  Exchange({}, {&message, 1});
}

void Comm::AllToAll(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from) const {
  const auto me = static_cast<size_t>(rank());
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  for (size_t r = 0; r < to.size(); ++r) {
    if (r == me) continue;
    out.push_back({static_cast<int>(r), to[r]});
    in.push_back({static_cast<int>(r), from[r]});
  }
  if (!PlanScope::Active()) Copy(to[me], from[me]);
  Exchange(out, in);
}

void Comm::AllGather(std::span<const std::byte> mine, std::span<const std::span<std::byte>> all) const {
  const std::vector<std::span<const std::byte>> to(all.size(), mine);
  AllToAll(to, all);
}

template <class T, class F>
void Comm::Combine(std::span<T> x, const F& combine) const {
  if (size() == 1) return;
  if (PlanScope::Active()) return CountToAll(std::ssize(x) * static_cast<int64_t>(sizeof(T)));
  const auto n = static_cast<size_t>(size());
  std::vector<T> all(n * x.size());
  std::vector<std::span<std::byte>> parts;
  for (size_t r = 0; r < n; ++r) parts.push_back(BytesOf(std::span(all).subspan(r * x.size(), x.size())));
  AllGather(BytesOf(x), parts);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = all[i];
    for (size_t r = 1; r < n; ++r) x[i] = combine(x[i], all[r * x.size() + i]);
  }
}

void Comm::AllSum(std::span<double> x) const { Combine(x, std::plus<double>()); }
void Comm::AllSum(std::span<int64_t> x) const { Combine(x, std::plus<int64_t>()); }
void Comm::AllMax(std::span<double> x) const {
  Combine(x, [](double a, double b) { return std::max(a, b); });
}
void Comm::AllMax(std::span<float> x) const {
  Combine(x, [](float a, float b) { return std::max(a, b); });
}

void Comm::Barrier() const {
  int64_t nothing = 0;
  AllSum(std::span(&nothing, 1));
}

int64_t Comm::SumBytes(int64_t elements) {
  return 2 * std::min(elements, static_cast<int64_t>(kBucket)) * static_cast<int64_t>(sizeof(float));
}

// As SumBucket does for each bucket.
void Comm::CountSum(int64_t elements) const {
  if (!planned()) return;
  for (int64_t rest = elements; rest > 0; rest -= static_cast<int64_t>(kBucket)) {
    const int64_t bucket = std::min(rest, static_cast<int64_t>(kBucket)), n = size();
    const auto part = [&](int64_t r) { return (bucket * (r + 1) / n - bucket * r / n) * static_cast<int64_t>(sizeof(float)); };
    for (int r = 0; r < n; ++r) {
      if (r != rank()) Count(r, part(r));
    }
    CountToAll(part(rank()));
  }
}

// Each rank sums its part of the bucket and gives it to the others.
void Comm::SumBucket(std::span<float> bucket) const {
  const auto n = static_cast<size_t>(size()), me = static_cast<size_t>(rank());
  const auto part = [&](size_t r) {
    const size_t begin = bucket.size() * r / n, end = bucket.size() * (r + 1) / n;
    return bucket.subspan(begin, end - begin);
  };
  const std::span<float> mine = part(me);
  state_->sums.resize(n * mine.size());
  std::vector<std::span<const std::byte>> to;
  std::vector<std::span<std::byte>> from, all;
  for (size_t r = 0; r < n; ++r) {
    to.push_back(BytesOf(part(r)));
    all.push_back(BytesOf(part(r)));
    from.push_back(BytesOf(std::span(state_->sums).subspan(r * mine.size(), mine.size())));
  }
  AllToAll(to, from);
  if (!mine.empty()) {
    Cast(ViewOfFloats(std::span(state_->sums).first(mine.size())), ViewOfFloats(mine));
    for (size_t r = 1; r < n; ++r)
      AddScaled(1, ViewOfFloats(std::span(state_->sums).subspan(r * mine.size(), mine.size())), ViewOfFloats(mine));
  }
  AllGather(BytesOf(mine), all);
}

void Comm::AllSum(std::span<const View> list) const {
  if (size() == 1) return;
  if (PlanScope::Active()) {
    int64_t elements = 0;
    for (const View& view : list) elements += view.NumElements();
    return CountSum(elements);
  }
  std::vector<float>& bucket = state_->bucket;
  std::vector<std::span<float>> waiting;
  size_t used = 0;
  const auto sum = [&] {
    if (used == 0) return;
    SumBucket(std::span(bucket).first(used));
    const float* at = bucket.data();
    for (const std::span<float> piece : waiting) at += (std::copy_n(at, piece.size(), piece.begin()), piece.size());
    waiting.clear();
    used = 0;
  };
  for (const View& view : list) {
    FATHOM_CHECK(view.contiguous(), "{}", view.shape().ToString());
    std::span<float> rest(view.data<float>(), static_cast<size_t>(view.NumElements()));
    while (!rest.empty()) {
      const std::span<float> piece = rest.first(std::min(rest.size(), kBucket - used));
      if (bucket.size() < used + piece.size()) bucket.resize(used + piece.size());
      std::ranges::copy(piece, bucket.begin() + static_cast<ptrdiff_t>(used));
      waiting.push_back(piece);
      used += piece.size();
      rest = rest.subspan(piece.size());
      if (used == kBucket) sum();
    }
  }
  sum();
}

}  // namespace fathom
