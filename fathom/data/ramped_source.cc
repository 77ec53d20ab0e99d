#include "fathom/data/ramped_source.h"

#include <algorithm>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// Lays row `from` of one batch over row `to` of another.
void CopyRow(const Batch& source, int64_t from, int64_t to, Batch& batch) {
  const int64_t begin = from * source.length, shift = (to - from) * source.length;
  for (const TokenRange& s : source.segments) {
    if (s.begin < begin || s.begin >= begin + source.length) continue;
    const auto at = static_cast<size_t>(s.begin);
    batch.AddSegment(s.begin + shift, s.end - s.begin, source.ids.data() + at, source.targets.data() + at, source.segment_ids[at]);
  }
  const auto n = static_cast<std::ptrdiff_t>(source.length);
  std::copy_n(source.weights.begin() + begin, n, batch.weights.begin() + to * source.length);
  std::copy_n(source.positions.begin() + begin, n, batch.positions.begin() + to * source.length);
}

// Drops the rows that were not filled.
void Shorten(int64_t rows, Batch& batch) {
  batch.rows = rows;
  const auto n = static_cast<size_t>(batch.tokens());
  for (auto* array : {&batch.ids, &batch.targets, &batch.positions, &batch.segment_ids}) array->resize(n);
  batch.weights.resize(n);
}

}  // namespace

void CheckRamp(const RampRule& rule) {
  if (rule.first < 1 || rule.increment < 1 || rule.first >= rule.last || (rule.last - rule.first) % rule.increment != 0 ||
      rule.samples < 1) {
    Throw(ErrorCode::kUsage,
          "enable_rampup_batch_size=true: from per_device_batch_size_start={} to per_device_batch_size={} in whole steps of "
          "per_device_batch_size_increment={}, within global_rampup_samples={}: that can't be",
          rule.first, rule.last, rule.increment, rule.samples);
  }
}

int64_t RampedRows(const RampRule& rule, int64_t step) {
  const int64_t sizes = (rule.last - rule.first) / rule.increment;
  for (int64_t rows = rule.first; rows < rule.last; rows += rule.increment) {
    step -= (rule.samples + sizes * rows - 1) / (sizes * rows);
    if (step < 0) return rows;
  }
  return rule.last;
}

bool RampedSource::Refill() {
  before_ = full_->State();
  used_ = 0;
  if (full_->Next(&held_)) return true;
  held_.Clear(0, held_.length);
  return false;
}

bool RampedSource::Next(Batch* batch) {
  const int64_t wanted = RampedRows(rule_, steps_);
  if (used_ >= held_.rows && !Refill()) return false;
  const int64_t own = wanted / rule_.ranks, first = own * rule_.rank;
  batch->Clear(own, held_.length);
  int64_t rows = 0;
  for (; rows < wanted && (used_ < held_.rows || Refill()); ++rows, ++used_) {
    if (rows >= first && rows < first + own) CopyRow(held_, used_, rows - first, *batch);
  }
  batch->target_count = std::count_if(batch->weights.begin(), batch->weights.end(), [](float w) { return w != 0; });
  if (rows < wanted && rule_.ranks == 1) Shorten(rows, *batch);
  ++steps_;
  return true;
}

Json RampedSource::State() const {
  const bool within = used_ < held_.rows;
  return {{"kind", "ramp"}, {"steps", steps_}, {"row", within ? used_ : 0}, {"full", within ? before_ : full_->State()}};
}

void RampedSource::Restore(const Json& state) {
  const auto counts = [&](const char* name) { return state.contains(name) && state[name].is_number_integer() && state[name] >= 0; };
  const bool known =
      state.is_object() && state.value("kind", Json()) == "ramp" && state.contains("full") && counts("row") && counts("steps");
  if (!known) Throw(ErrorCode::kInput, "the saved place in the data is not of a run with enable_rampup_batch_size=true");
  full_->Restore(state["full"]);
  held_.Clear(0, 0);
  used_ = 0;
  steps_ = state["steps"].get<int64_t>();
  const int64_t row = state["row"].get<int64_t>();
  if (row == 0) return;
  if (!Refill() || row >= held_.rows) Throw(ErrorCode::kInput, "the saved place in the data lies behind a batch of {} rows", held_.rows);
  used_ = row;
}

void RampedSource::Reset() {
  full_->Reset();
  held_.Clear(0, 0);
  used_ = steps_ = 0;
}

}  // namespace fathom
