#include "fathom/data/document_stream.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"

namespace fathom {

std::vector<int64_t> ShuffledOrder(int64_t n, uint64_t seed, std::string_view name) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  const CounterRng rng(seed, HashName(name));
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.Below(i, i)]);
  return order;
}

DocumentStream::DocumentStream(const StreamConfig& config)
    : config_(config), files_(FindDataFiles(config.dataset_path)), extents_(CutIntoExtents(files_, config.extent_bytes)) {
  std::string description;
  for (const DataFile& f : files_) description += fmt::format("{} {}\n", f.path.filename().string(), f.bytes);
  files_hash_ = HashName(description);
  ChooseHeldOut();
  StartEpoch(0);
}

void DocumentStream::StartEpoch(int64_t epoch) {
  const auto n = static_cast<int64_t>(extents_.size());
  if (config_.shuffle) {
    order_ = ShuffledOrder(n, config_.seed, fmt::format("data extents {}", epoch));
  } else {
    order_.resize(extents_.size());
    std::iota(order_.begin(), order_.end(), int64_t{0});
  }
  position_ = {epoch, 0, 0};
  reader_.reset();
}

void DocumentStream::OpenExtent() {
  const Extent& extent = extents_[static_cast<size_t>(order_[static_cast<size_t>(position_.extent)])];
  reader_.emplace(files_[static_cast<size_t>(extent.file)], extent, config_.text_field, static_cast<size_t>(config_.extent_bytes));
}

void DocumentStream::Seek(const DocumentPosition& position) {
  StartEpoch(position.epoch);
  if (position.extent >= static_cast<int64_t>(extents_.size())) {
    position_ = position;
    return;
  }
  position_.extent = position.extent;
  OpenExtent();
  Document skipped;
  while (position_.document < position.document && reader_->Next(&skipped)) ++position_.document;
}

// Whole extents where there are enough of them (of plain text at least one); otherwise single documents.
void DocumentStream::ChooseHeldOut() {
  const auto n = static_cast<int64_t>(extents_.size());
  const auto any = [&](bool DataFile::*property) {
    return std::any_of(files_.begin(), files_.end(), [&](const DataFile& f) { return f.*property; });
  };
  const double expected = config_.held_out_fraction * static_cast<double>(n);
  if (config_.split == Split::kAll || n < 2 || any(&DataFile::compressed) || (expected < 1 && any(&DataFile::json_lines))) return;
  held_out_extents_.assign(extents_.size(), false);
  const std::vector<int64_t> order = ShuffledOrder(n, config_.seed, "held out extents");
  const auto count = std::clamp<int64_t>(std::llround(expected), 1, n - 1);
  for (int64_t i = 0; i < count; ++i) held_out_extents_[static_cast<size_t>(order[static_cast<size_t>(i)])] = true;
}

bool DocumentStream::InSplit(int64_t extent_index, int64_t document) const {
  if (config_.split == Split::kAll) return true;
  const bool wanted = config_.split == Split::kHeldOut;
  if (!held_out_extents_.empty()) return held_out_extents_[static_cast<size_t>(extent_index)] == wanted;
  const CounterRng rng(config_.seed, HashName(fmt::format("held out {}", extent_index)));
  return (rng.Uniform(static_cast<uint64_t>(document)) < config_.held_out_fraction) == wanted;
}

bool DocumentStream::Next(Document* document) {
  while (position_.extent < static_cast<int64_t>(order_.size())) {
    if (!reader_) OpenExtent();
    while (reader_->Next(document)) {
      const int64_t index = position_.document++;
      if (!document->text.empty() && InSplit(order_[static_cast<size_t>(position_.extent)], index)) return true;
    }
    reader_.reset();
    ++position_.extent;
    position_.document = 0;
  }
  return false;
}

}  // namespace fathom
