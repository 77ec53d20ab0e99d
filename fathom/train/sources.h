// The data of a run: batches to train on and, if asked for, batches to evaluate on.
#pragma once

#include <memory>
#include <optional>

#include "fathom/chat/chat_template.h"
#include "fathom/config/run_config.h"
#include "fathom/data/batch_source.h"
#include "fathom/tokenizer/tokenizer.h"
#include "fathom/train/options.h"

namespace fathom {

struct DataSources {
  std::shared_ptr<const Tokenizer> tokenizer;     // null for synthetic data
  std::vector<std::filesystem::path> companions;  // the tokenizer's files, or those beside the loaded weights: saved with every checkpoint
  std::optional<ChatTemplate> chat;               // of conversations
  std::unique_ptr<BatchSource> train;
  std::unique_ptr<BatchSource> eval;  // null unless eval_interval > 0
  Comm host;                          // the ranks of this machine, of which the first reads and tokenises for all

  // Of text, by this rank.
  int64_t bytes_tokenised() const { return train->bytes_tokenised() + (eval ? eval->bytes_tokenised() : 0); }
};

// Before anything is read or planned: throws Error(kUsage) unless the flags name some data to train on.
void CheckDataNamed(const RunConfig& config);

// Throws Error(kUsage) for flags that contradict each other, Error(kInput) for data that can't be read. Collective.
DataSources OpenSources(const RunConfig& config, const TrainOptions& options, const ModelConfig& model);

}  // namespace fathom
