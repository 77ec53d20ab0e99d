// enable_rampup_batch_size: batches that begin small and grow to the full size, as MaxText's.
#pragma once

#include <memory>

#include "fathom/data/batch_source.h"

namespace fathom {

struct RampRule {
  int64_t first = 0, increment = 0, last = 0;  // rows of a batch: first, then `increment` more at a time, up to `last`
  int64_t samples = 0;                         // rows until then, as many of each size
  int64_t rank = 0, ranks = 1;                 // rank r gets the r-th of so many equal parts of a batch
};

// Throws Error(kUsage) unless first < last, in whole increments.
void CheckRamp(const RampRule& rule);

// Rows of step `step`'s batch: each size but the last for as many steps as make up its share of rule.samples.
int64_t RampedRows(const RampRule& rule, int64_t step);

class RampedSource final : public BatchSource {
 public:
  // full gives batches of rule.last rows, those of all ranks; their rows are handed out in order. Text that a batch stands for (text_bytes)
  // is not known of its parts, and 0.
  RampedSource(const RampRule& rule, std::unique_ptr<BatchSource> full) : rule_(rule), full_(std::move(full)) { CheckRamp(rule); }

  // The last batch has what rows there are; on one of several ranks the others are padding.
  bool Next(Batch* batch) override;
  Json State() const override;
  void Restore(const Json& state) override;
  void Reset() override;
  SampleCounts counts() const override { return full_->counts(); }
  int64_t bytes_tokenised() const override { return full_->bytes_tokenised(); }

 private:
  bool Refill();

  RampRule rule_;
  std::unique_ptr<BatchSource> full_;
  Json before_;        // full_'s state before held_
  Batch held_;         // what rows come from
  int64_t used_ = 0;   // rows of held_ that are handed out
  int64_t steps_ = 0;  // batches given so far
};

}  // namespace fathom
