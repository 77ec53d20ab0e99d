// Several data sets in given proportions.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/data/batch_source.h"

namespace fathom {

struct MixturePart {
  std::string path;
  double weight = 0;
};

// "a.txt:0.7,b.jsonl:0.3" -> two parts; empty if no part has a weight (a path that exists as it stands has none). Throws Error(kUsage):
// some have one and others don't, one that is not above 0; flag names the text.
std::vector<MixturePart> ParseMixture(const std::string& paths, std::string_view flag);

struct MixtureConfig {
  int64_t rows = 0, length = 0;  // of this rank's batch
  int rank = 0, ranks = 1;       // rank r gets rows r*rows .. of each global batch
};

// Each row is the next one of the source that is furthest behind its share of the rows so far: the shares hold at any time, within a row.
// Ends with the first source that does.
class MixtureSource final : public BatchSource {
 public:
  // sources: of one row, on one rank; as many as weights.
  MixtureSource(const MixtureConfig& config, std::vector<std::unique_ptr<BatchSource>> sources, std::vector<double> weights);
  bool Next(Batch* batch) override;
  Json State() const override;
  // Throws Error(kInput): the state of something else, other weights, or as the sources do.
  void Restore(const Json& state) override;
  void Reset() override;
  SampleCounts counts() const override;
  int64_t bytes_tokenised() const override;

 private:
  size_t Furthest() const;

  MixtureConfig config_;
  std::vector<std::unique_ptr<BatchSource>> sources_;
  std::vector<double> weights_;  // they sum to 1
  std::vector<int64_t> taken_;   // rows of each
  Batch row_;
};

}  // namespace fathom
