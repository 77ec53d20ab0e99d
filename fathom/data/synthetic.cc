#include "fathom/data/synthetic.h"

#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"

namespace fathom {

SyntheticSource::SyntheticSource(const SyntheticConfig& config) {
  FATHOM_CHECK(config.rows > 0 && config.length > 0 && config.vocab_size > 0);
  const CounterRng rng(config.seed, HashName("synthetic data"));
  const int64_t width = config.length + 1;
  batch_.Clear(config.rows, config.length);
  std::vector<int32_t> row(static_cast<size_t>(width));
  for (int64_t b = 0; b < config.rows; ++b) {
    const int64_t first = (config.rank * config.rows + b) * width;
    for (int64_t t = 0; t < width; ++t) {
      row[static_cast<size_t>(t)] =
          static_cast<int32_t>(rng.Below(static_cast<uint64_t>(first + t), static_cast<uint64_t>(config.vocab_size)));
    }
    batch_.AddSegment(b * config.length, config.length, row.data(), row.data() + 1, 1);
  }
}

bool SyntheticSource::Next(Batch* batch) {
  *batch = batch_;
  return true;
}

}  // namespace fathom
