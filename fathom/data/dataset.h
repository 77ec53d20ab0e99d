// The sources that the flags ask for.
#pragma once

#include <cstdint>
#include <memory>

#include "fathom/config/run_config.h"
#include "fathom/data/batch_source.h"
#include "fathom/data/text.h"
#include "fathom/tokenizer/tokenizer.h"

namespace fathom {

struct DataRanks {
  int rank = 0, ranks = 1;
};

// dataset_type=synthetic|text, dataset_path, train_data_columns, per_device_batch_size, gradient_accumulation_steps, max_target_length,
// data_shuffle_seed, enable_data_shuffling, packing, grain_packing_type, max_segments_per_seq, num_epoch (0: without end), add_bos, add_eos,
// and with eval_interval > 0 and no eval_dataset_path: eval_fraction, the part of dataset_path that is held out.
// A batch holds the rows of all micro-batches of a step. tokenizer (null with synthetic data) outlives the source.
// Throws Error: kUsage for flags, kInput for files and for a tokenizer with more tokens than vocab_size.
std::unique_ptr<BatchSource> MakeTrainSource(const RunConfig& config, const Tokenizer* tokenizer, int64_t vocab_size, DataRanks ranks = {});

// The same for evaluation: eval_dataset_path or the held-out part, in order, once; eval_per_device_batch_size rows, one micro-batch.
// Synthetic data has no end: it needs eval_steps.
std::unique_ptr<BatchSource> MakeEvalSource(const RunConfig& config, const Tokenizer* tokenizer, int64_t vocab_size, DataRanks ranks = {});

}  // namespace fathom
