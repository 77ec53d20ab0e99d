// dataset_type=synthetic: one random batch, the same at every step.
#pragma once

#include <cstdint>

#include "fathom/data/batch_source.h"

namespace fathom {

struct SyntheticConfig {
  int64_t rows = 0, length = 0, vocab_size = 0;  // rows of this rank's batch
  uint64_t seed = 0;
  int rank = 0;  // rank r gets rows r * rows .. of the global batch
};

class SyntheticSource final : public BatchSource {
 public:
  // T+1 uniform tokens per row: ids are the first T, targets the last T; one segment per row.
  explicit SyntheticSource(const SyntheticConfig& config);
  bool Next(Batch* batch) override;
  Json State() const override { return Json::object(); }
  void Restore(const Json&) override {}
  void Reset() override {}

 private:
  Batch batch_;
};

}  // namespace fathom
