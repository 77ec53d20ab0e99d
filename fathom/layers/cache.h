// The key-value cache of many sequences: per layer the normed latent and the rotated key (MLA), and the indexer's keys (V3.2), in blocks of
// kCacheBlock tokens. A block serves all layers and may be held by several sequences: a common prefix is kept once, and a fork copies
// nothing until it writes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fathom/config/model_config.h"
#include "fathom/kernels/attention/mla_decode.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

struct LayerCache {
  Tensor latent_rope;   // [rows, R+Dr], compute dtype
  Tensor indexer_keys;  // [rows, index_head_dim], compute dtype; empty without an indexer
};

class CachePool {
 public:
  // layers: how many decoder layers keep a cache (main ones, then MTP modules). All memory is counted here; it is taken where it is
  // first touched.
  CachePool(const ModelConfig& config, int64_t layers, int64_t blocks, DType dtype);
  CachePool(const CachePool&) = delete;
  CachePool& operator=(const CachePool&) = delete;

  LayerCache& layer(int64_t i) { return layers_[static_cast<size_t>(i)]; }
  int64_t blocks() const { return std::ssize(holders_); }
  int64_t FreeBlocks() const { return std::ssize(free_); }
  int64_t NumBytes() const;

  // A block with one holder, its contents undefined. Throws Error(kResource) if none is free.
  int32_t Take();
  void Share(int32_t block) { ++holders_[static_cast<size_t>(block)]; }
  void Release(int32_t block);
  int64_t holders(int32_t block) const { return holders_[static_cast<size_t>(block)]; }
  // All layers' rows of one block into another.
  void Copy(int32_t from, int32_t to);

  static int64_t BlocksFor(int64_t tokens) { return (tokens + kCacheBlock - 1) / kCacheBlock; }
  // The bytes of a pool for so many tokens of one sequence, from the sizes alone.
  static int64_t PlannedBytes(const ModelConfig& config, int64_t layers, int64_t tokens, DType dtype);

 private:
  std::vector<LayerCache> layers_;
  std::vector<int32_t> holders_;  // of every block
  std::vector<int32_t> free_;     // the last is taken first
};

// What one sequence holds of a pool, which outlives it.
class CachedSequence {
 public:
  explicit CachedSequence(CachePool& pool) : pool_(&pool) {}
  ~CachedSequence();
  CachedSequence(CachedSequence&& other) noexcept;
  CachedSequence& operator=(CachedSequence&& other) noexcept;  // of the same pool

  // Another sequence with the first `length` tokens of this one, in the same blocks.
  CachedSequence Fork(int64_t length) const;
  int64_t length() const { return length_; }
  BlockTable blocks() const { return blocks_; }
  // Makes room for tokens [begin, end) in blocks of its own, copying shared ones. Throws Error(kResource) if the pool has no block left.
  void Own(int64_t begin, int64_t end);
  // The length after tokens were written or taken back; blocks behind it are given back.
  void SetLength(int64_t length);

 private:
  CachePool* pool_;
  std::vector<int32_t> blocks_;
  int64_t length_ = 0;
};

// Rows begin..end of a decoding pass are tokens past..past + (end - begin) of one sequence.
struct CachedSegment {
  int64_t begin, end, past;
  BlockTable blocks;
  int64_t length() const { return past + end - begin; }
};

// Tokens at the beginning of both that lie in the same blocks; none that either of them writes in this pass.
int64_t SharedTokens(const CachedSegment& a, const CachedSegment& b);

// A ragged batch: rows of several sequences, each with its own past, one sequence behind the other. Per row its position, how many of its
// sequence's tokens it sees (itself included), and where they lie.
struct CachedRows {
  std::span<const CachedSegment> segments;
  std::span<const int32_t> positions;
  std::span<const int64_t> visible;
  std::span<const BlockTable> tables;
  int64_t count() const { return std::ssize(positions); }
  // The pool's row of a row's own token.
  int64_t RowOf(int64_t row) const {
    const int64_t at = positions[static_cast<size_t>(row)];
    return tables[static_cast<size_t>(row)][static_cast<size_t>(at / kCacheBlock)] * kCacheBlock + at % kCacheBlock;
  }
};

struct RopeTable;
// What all layers of one decoding pass share, and the cache of this one.
struct CachedInputs {
  const CachedRows& rows;
  const RopeTable& rope;
  LayerCache& cache;
};

// x [M,W] to the rows' own places in `cache` [.,W], of the same dtype.
void StoreRows(ConstView x, const CachedRows& rows, View cache);
// The tokens of one segment's sequence, up to its end, one after the other: y [length,W], overwritten.
void GatherSequence(const CachedSegment& segment, ConstView cache, View y);
// The listed tokens of one segment's sequence: y [tokens,W], overwritten.
void GatherTokens(const CachedSegment& segment, std::span<const int32_t> tokens, ConstView cache, View y);

}  // namespace fathom
