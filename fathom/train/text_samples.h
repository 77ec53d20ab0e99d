// Text that a model writes while it is trained: greedily, by the weights of that moment, on the way that `fathom decode` takes.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "fathom/infer/generate.h"
#include "fathom/train/session.h"
#include "fathom/train/sources.h"

namespace fathom {

class TextSamples {
 public:
  // Appends to metrics/samples.jsonl in options.run_dir, of which the steps before first_step stay. session and sources outlive this.
  // config: the model's, for its end of sentence. Throws Error(kUsage): data without a tokenizer, nothing to begin with, a prompt and
  // samples.tokens beyond max_position_embeddings.
  TextSamples(const TrainOptions& options, int64_t first_step, TrainSession& session, const ModelConfig& config,
              const DataSources& sources);

  bool Due(int64_t step) const { return step % options_.period == 0; }
  // The sample after this step, unless there is one; a model that cannot go on (its logits are not finite) is a warning. Throws
  // Error(kResource).
  void Write(int64_t step);

 private:
  SampleOptions options_;
  std::filesystem::path path_;
  const Tokenizer& tokenizer_;
  std::vector<int32_t> prompt_;
  MappedModel model_;
  Engine engine_;
  int64_t last_ = -1;
};

// What it takes besides the weights, counted where `session` is planned.
int64_t PlanSamples(const TrainOptions& options, TrainSession& session);

}  // namespace fathom
