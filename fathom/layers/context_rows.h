// Tokens of sequences that several ranks share: each sequence is cut into 2n equal chunks, of which rank r of n has number r and number
// 2n-1-r, one behind the other, so that under a causal mask all of them have equal work.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/parallel/comm.h"
#include "fathom/tensor/arena.h"

namespace fathom {

class ContextRows {
 public:
  // tokens: of this rank, `sequence` of them from each sequence (0: there is one).
  ContextRows(const Comm& comm, int64_t tokens, int64_t sequence)
      : comm_(comm), tokens_(tokens), chunk_((sequence > 0 ? sequence : tokens) / 2) {}

  bool divided() const { return comm_.size() > 1; }
  int64_t all() const { return tokens_ * comm_.size(); }  // tokens of all ranks
  int64_t chunk() const { return chunk_; }

  // f(own, whole) for each chunk of rank r, in order: its first token among the rank's and among all of them.
  template <class F>
  void ForChunks(int r, const F& f) const {
    const int64_t n = comm_.size();
    for (int64_t own = 0, begin = 0; own < tokens_; own += 2 * chunk_, begin += 2 * n * chunk_) {
      f(own, begin + r * chunk_);
      f(own + chunk_, begin + (2 * n - 1 - r) * chunk_);
    }
  }
  template <class F>
  void ForChunks(const F& f) const {
    ForChunks(comm_.rank(), f);
  }

  // own [T,W] of every rank to all [n*T,W], in the order of the sequences; contiguous, of one dtype.
  void Gather(ConstView own, View all) const;
  // Whole numbers below 2^24, `each` a token: own [T*each] of every rank to all [n*T*each], in scratch.
  std::span<int32_t> GatherIds(std::span<const int32_t> own, int64_t each, Arena& scratch) const;
  // own [T,W] F32 = the sum over ranks of what they have for its tokens in all [n*T,W] F32.
  void Reduce(ConstView all, View own, Arena& scratch) const;

 private:
  const Comm& comm_;
  int64_t tokens_, chunk_;
};

}  // namespace fathom
