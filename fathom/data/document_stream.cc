#include "fathom/data/document_stream.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"

namespace fathom {
namespace {

// One of each 1/fraction documents in a row, at random: the share is right for few documents too.
bool IsDrawn(const CounterRng& rng, int64_t document, double fraction) {
  const double at = static_cast<double>(document);
  for (double row = std::floor(at * fraction); row < (at + 1) * fraction; ++row) {
    const double drawn = std::floor((row + rng.Uniform(static_cast<uint64_t>(row))) / fraction);
    if (drawn == at) return true;
  }
  return false;
}

}  // namespace

std::vector<int64_t> ShuffledOrder(int64_t n, uint64_t seed, std::string_view name) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  const CounterRng rng(seed, HashName(name));
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.Below(i, i)]);
  return order;
}

std::string OneColumn(const std::vector<std::string>& columns, std::string_view flag) {
  if (columns.size() != 1) {
    Throw(ErrorCode::kUsage, "{}=[{}]: one field is needed, that with the text", flag, fmt::join(columns, ","));
  }
  return columns.front();
}

DocumentStream::DocumentStream(const StreamConfig& config)
    : config_(config),
      files_(config.files.empty() ? FindDataFiles(config.dataset_path, config.path_flag) : DescribeFiles(config.files)),
      extents_(CutIntoExtents(files_, config.extent_bytes)) {
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
  reader_.emplace(files_[static_cast<size_t>(extent.file)], extent, config_.text_field, static_cast<size_t>(config_.extent_bytes),
                  config_.row_columns);
  file_ = extent.file;
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

std::string DocumentStream::Describe(const Document& document) const {
  return DescribeRow(files_[static_cast<size_t>(document.file)], document.place);
}

// By bytes where that is fair; rows of which the part would be less than an extent, and files that can't be cut, document by document.
void DocumentStream::ChooseHeldOut() {
  const double expected = config_.held_out_fraction * static_cast<double>(extents_.size());
  const auto one_by_one = [&](const DataFile& f) { return !Divisible(f) || (expected < 1 && f.kind == FileKind::kJsonLines); };
  if (config_.split == Split::kAll || std::ranges::any_of(files_, one_by_one)) return;
  HoldOutExtents();
}

// Extents in a shuffled order, the last of them divided.
void DocumentStream::HoldOutExtents() {
  const std::vector<int64_t> order = ShuffledOrder(static_cast<int64_t>(extents_.size()), config_.seed, "held out extents");
  const auto bytes = [](const Extent& e) { return e.end - e.begin; };
  int64_t left = 0;
  for (const Extent& e : extents_) left += bytes(e);
  left = std::llround(config_.held_out_fraction * static_cast<double>(left));
  held_out_extents_.assign(extents_.size(), false);
  for (size_t i = 0; i < order.size() && left > 0; ++i) {
    const int64_t at = order[i];
    Extent& extent = extents_[static_cast<size_t>(at)];
    held_out_extents_[static_cast<size_t>(at)] = true;
    if (bytes(extent) > left) {
      const Extent rest = {extent.file, CutExtent(files_[static_cast<size_t>(extent.file)], extent, left), extent.end};
      extent.end = rest.begin;
      extents_.insert(extents_.begin() + at + 1, rest);
      held_out_extents_.insert(held_out_extents_.begin() + at + 1, false);
      return;
    }
    left -= bytes(extent);
  }
}

bool DocumentStream::InSplit(int64_t extent_index, int64_t document) const {
  if (config_.split == Split::kAll) return true;
  const bool wanted = config_.split == Split::kHeldOut;
  if (!held_out_extents_.empty()) return held_out_extents_[static_cast<size_t>(extent_index)] == wanted;
  const CounterRng rng(config_.seed, HashName(fmt::format("held out {}", extent_index)));
  return IsDrawn(rng, document, config_.held_out_fraction) == wanted;
}

bool DocumentStream::Next(Document* document) {
  while (position_.extent < static_cast<int64_t>(order_.size())) {
    if (!reader_) OpenExtent();
    while (reader_->Next(document)) {
      const int64_t index = position_.document++;
      document->file = file_;
      if (!document->text.empty() && InSplit(order_[static_cast<size_t>(position_.extent)], index)) return true;
    }
    reader_.reset();
    ++position_.extent;
    position_.document = 0;
  }
  return false;
}

}  // namespace fathom
