#include "fathom/layers/cache.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"

namespace fathom {
namespace {

void CopyRows(ConstView from, int64_t first, int64_t count, View to, int64_t at) {
  const int64_t bytes = from.dim(1) * DTypeSize(from.dtype());
  FATHOM_CHECK(from.dtype() == to.dtype() && from.stride() == from.dim(1) && to.stride() == to.dim(1), "rows with gaps");
  std::memcpy(to.raw() + at * bytes, from.raw() + first * bytes, static_cast<size_t>(count * bytes));
}

}  // namespace

CachePool::CachePool(const ModelConfig& c, int64_t count, int64_t blocks, DType dtype)
    : holders_(static_cast<size_t>(blocks)), free_(static_cast<size_t>(blocks)) {
  const int64_t rows = blocks * kCacheBlock;
  for (int64_t i = 0; i < count; ++i) {
    LayerCache layer{Tensor(dtype, {rows, c.kv_lora_rank + c.qk_rope_head_dim}), {}};
    if (c.has_indexer()) layer.indexer_keys = Tensor(dtype, {rows, c.index_head_dim});
    layers_.push_back(std::move(layer));
  }
  std::iota(free_.rbegin(), free_.rend(), 0);
}

int64_t CachePool::NumBytes() const {
  int64_t bytes = 0;
  for (const LayerCache& layer : layers_) bytes += layer.latent_rope.NumBytes() + layer.indexer_keys.NumBytes();
  return bytes;
}

int32_t CachePool::Take() {
  if (free_.empty()) {
    Throw(ErrorCode::kResource, "all {} blocks of {} tokens of the cache are in use; give batch_size= or max_target_length= less", blocks(),
          kCacheBlock);
  }
  const int32_t block = free_.back();
  free_.pop_back();
  holders_[static_cast<size_t>(block)] = 1;
  return block;
}

void CachePool::Release(int32_t block) {
  int32_t& holders = holders_[static_cast<size_t>(block)];
  FATHOM_CHECK(holders > 0, "block {} is free", block);
  if (--holders == 0) free_.push_back(block);
}

void CachePool::Copy(int32_t from, int32_t to) {
  for (LayerCache& layer : layers_) {
    for (Tensor* rows : {&layer.latent_rope, &layer.indexer_keys}) {
      if (!rows->empty()) CopyRows(rows->view(), from * kCacheBlock, kCacheBlock, rows->mutable_view(), to * kCacheBlock);
    }
  }
}

int64_t CachePool::PlannedBytes(const ModelConfig& c, int64_t layers, int64_t tokens, DType dtype) {
  const int64_t width = c.kv_lora_rank + c.qk_rope_head_dim + (c.has_indexer() ? c.index_head_dim : 0);
  return layers * BlocksFor(tokens) * kCacheBlock * width * DTypeSize(dtype);
}

CachedSequence::~CachedSequence() {
  for (const int32_t block : blocks_) pool_->Release(block);
}

CachedSequence::CachedSequence(CachedSequence&& other) noexcept
    : pool_(other.pool_), blocks_(std::exchange(other.blocks_, {})), length_(std::exchange(other.length_, 0)) {}

CachedSequence& CachedSequence::operator=(CachedSequence&& other) noexcept {
  FATHOM_CHECK(pool_ == other.pool_, "sequences of two pools");
  std::swap(blocks_, other.blocks_);
  std::swap(length_, other.length_);
  return *this;
}

CachedSequence CachedSequence::Fork(int64_t length) const {
  FATHOM_CHECK(0 <= length && length <= length_, "{} of {} tokens", length, length_);
  CachedSequence fork(*pool_);
  fork.blocks_.assign(blocks_.begin(), blocks_.begin() + CachePool::BlocksFor(length));
  for (const int32_t block : fork.blocks_) pool_->Share(block);
  fork.length_ = length;
  return fork;
}

void CachedSequence::Own(int64_t begin, int64_t end) {
  for (int64_t i = begin / kCacheBlock; i < CachePool::BlocksFor(end); ++i) {
    if (i == std::ssize(blocks_)) {
      blocks_.push_back(pool_->Take());
      continue;
    }
    int32_t& block = blocks_[static_cast<size_t>(i)];
    if (pool_->holders(block) == 1) continue;
    const int32_t own = pool_->Take();
    pool_->Copy(block, own);
    pool_->Release(block);
    block = own;
  }
}

void CachedSequence::SetLength(int64_t length) {
  FATHOM_CHECK(0 <= length && CachePool::BlocksFor(length) <= std::ssize(blocks_), "{} tokens in {} blocks", length, blocks_.size());
  length_ = length;
  for (; std::ssize(blocks_) > CachePool::BlocksFor(length); blocks_.pop_back()) pool_->Release(blocks_.back());
}

int64_t SharedTokens(const CachedSegment& a, const CachedSegment& b) {
  const auto differ = std::ranges::mismatch(a.blocks, b.blocks).in1;
  return std::min({(differ - a.blocks.begin()) * kCacheBlock, a.past, b.past});
}

void StoreRows(ConstView x, const CachedRows& rows, View cache) {
  ParallelRanges(rows.count(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) CopyRows(x, m, 1, cache, rows.RowOf(m));
  });
}

void GatherSequence(const CachedSegment& segment, ConstView cache, View y) {
  ParallelRanges(CachePool::BlocksFor(segment.length()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i * kCacheBlock, block = segment.blocks[static_cast<size_t>(i)];
      CopyRows(cache, block * kCacheBlock, std::min(kCacheBlock, segment.length() - at), y, at);
    }
  });
}

void GatherTokens(const CachedSegment& segment, std::span<const int32_t> tokens, ConstView cache, View y) {
  ParallelRanges(std::ssize(tokens), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = tokens[static_cast<size_t>(i)];
      CopyRows(cache, segment.blocks[static_cast<size_t>(at / kCacheBlock)] * kCacheBlock + at % kCacheBlock, 1, y, i);
    }
  });
}

}  // namespace fathom
