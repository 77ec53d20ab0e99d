// Ranks that work together: this one's place among them, and what they tell each other.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fathom/parallel/transport.h"
#include "fathom/tensor/view.h"

namespace fathom {

// What a group of ranks has cost this one.
struct Traffic {
  int64_t bytes_sent = 0, messages = 0;     // to the others
  int64_t far_bytes = 0, far_messages = 0;  // of them to other hosts; of planned groups
  double seconds = 0;                       // in calls, waiting included
  double hidden_seconds = 0;                // besides, while the rank computed
};

// Every call but rank(), size() and traffic() is made by all ranks of the group, in the same order, with sizes that fit. With one rank, and
// under a PlanScope, nothing is done: what would be received stays as it is; a planned group counts what would be sent. Sums are taken in
// the order of the ranks, so all of them get the same bits, in every run. Copies are the same group.
class Comm {
 public:
  Comm() = default;  // one rank
  explicit Comm(std::shared_ptr<Transport> transport);
  // Rank `rank` of so many that are not there, for use under a PlanScope; each host has so many of them, one behind the other.
  static Comm Planned(int rank, int size, int host_ranks);

  int rank() const { return state_ ? state_->rank : 0; }
  int size() const { return state_ ? static_cast<int>(state_->members.size()) : 1; }
  // Those ranks of the group, this one among them, in rising order; called by all of them. Its traffic is counted apart. label: a literal,
  // the name of what they tell each other in traces.
  Comm Part(const std::vector<int>& ranks, const char* label = kLabel) const;
  const char* label() const { return state_ ? state_->label : kLabel; }
  // The same group in a channel for another thread, its traffic counted apart.
  Comm InChannel(Channel channel) const;

  void Barrier() const;
  // x = the sum over ranks: F32, contiguous; several count as one after the other.
  void AllSum(View x) const { AllSum(std::span<const View>(&x, 1)); }
  void AllSum(std::span<const View> list) const;
  void AllSum(std::span<double> x) const;
  void AllSum(std::span<int64_t> x) const;
  void AllMax(std::span<double> x) const;
  void AllMax(std::span<float> x) const;
  // all[r] = what rank r calls `mine`; all[rank()] may be the same memory.
  void AllGather(std::span<const std::byte> mine, std::span<const std::span<std::byte>> all) const;
  // from[r] = what rank r has in to[rank()]; sizes differ as they like, both sides know them.
  void AllToAll(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from) const;
  // Many messages at once, by rank of the group; none to this rank itself.
  void Exchange(std::span<const Outgoing> out, std::span<const Incoming> in) const;
  void Send(int to, std::span<const std::byte> bytes) const;
  void Receive(int from, std::span<std::byte> bytes) const;

  Traffic traffic() const { return state_ ? state_->traffic : Traffic(); }
  // Counts what the group has sent in another channel.
  void AddTraffic(const Traffic& more) const;
  bool planned() const { return state_ && !state_->transport; }
  // Memory that AllSum keeps for views of so many elements in all.
  static int64_t SumBytes(int64_t elements);
  // Under a PlanScope, of a planned group: counts so many bytes in so many messages, spread evenly over the others.
  void CountSpread(int64_t bytes, int64_t messages) const;

 private:
  static constexpr const char* kLabel = "communication";
  struct State {
    std::shared_ptr<Transport> transport;  // none: planned
    std::vector<int> members;              // ranks of the transport
    int rank = 0;                          // of this one among them
    Channel channel = Channel::kMain;
    int host_ranks = 1;  // of a planned group
    const char* label = kLabel;
    Traffic traffic;
    std::vector<float> sums;  // [n*count]: what others sent
    std::vector<float> bucket;
    std::vector<Outgoing> out;
    std::vector<Incoming> in;
  };
  bool IsFar(size_t rank) const;
  void Count(int to, int64_t bytes) const;
  void CountToAll(int64_t bytes) const;
  void CountSum(int64_t elements) const;
  void SumBucket(std::span<float> bucket) const;
  template <class T, class F>
  void Combine(std::span<T> x, const F& combine) const;

  std::shared_ptr<State> state_;
};

// What each rank of the group says, in their order.
std::vector<std::string> AllGatherText(const Comm& comm, const std::string& mine);

// The memory of a contiguous view or of a list.
std::span<const std::byte> BytesOf(ConstView x);
std::span<std::byte> BytesOf(View x);
template <class T>
std::span<std::byte> BytesOf(std::span<T> x) {
  return std::as_writable_bytes(x);
}
template <class T>
std::span<const std::byte> BytesOf(std::span<const T> x) {
  return std::as_bytes(x);
}

}  // namespace fathom
