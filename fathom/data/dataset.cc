#include "fathom/data/dataset.h"

#include <algorithm>
#include <optional>
#include <string>

#include "fathom/base/error.h"
#include "fathom/data/synthetic.h"

namespace fathom {
namespace {

int64_t WholeRows(const char* flag, double value) {
  if (!(value >= 1)) Throw(ErrorCode::kUsage, "{}={}: must be 1 or more, every rank takes whole rows", flag, value);
  return static_cast<int64_t>(value);
}

int64_t TrainRows(const RunConfig& config) {
  return WholeRows("per_device_batch_size", config.Float("per_device_batch_size")) * std::max<int64_t>(config.Int("gradient_accumulation_steps"), 1);
}

int64_t EvalRows(const RunConfig& config) {
  const double eval = config.Float("eval_per_device_batch_size");
  return eval > 0 ? WholeRows("eval_per_device_batch_size", eval) : WholeRows("per_device_batch_size", config.Float("per_device_batch_size"));
}

uint64_t Seed(const RunConfig& config) { return static_cast<uint64_t>(config.Int("data_shuffle_seed")); }

std::unique_ptr<BatchSource> MakeSynthetic(const RunConfig& config, int64_t rows, int64_t vocab_size, DataRanks ranks) {
  return std::make_unique<SyntheticSource>(SyntheticConfig{
      .rows = rows, .length = config.Int("max_target_length"), .vocab_size = vocab_size, .seed = Seed(config), .rank = ranks.rank});
}

bool IsSynthetic(const RunConfig& config) {
  const std::string& type = config.String("dataset_type");
  if (type == "synthetic") return true;
  if (type == "text") return false;
  Throw(ErrorCode::kUsage, "dataset_type={}: must be text or synthetic here", type);
}

int32_t TokenOrNone(bool wanted, std::optional<int32_t> id) { return wanted && id ? *id : -1; }

std::string TextField(const RunConfig& config, const char* flag) {
  const auto& columns = config.Strings(flag);
  if (columns.size() != 1) Throw(ErrorCode::kUsage, "{}: name one field, the text of each JSON line", flag);
  return columns[0];
}

// What training and evaluation have in common.
TextConfig CommonTextConfig(const RunConfig& config, const Tokenizer* tokenizer, int64_t vocab_size, DataRanks ranks) {
  FATHOM_CHECK(tokenizer != nullptr);
  if (tokenizer->vocab_size() > vocab_size) {
    Throw(ErrorCode::kInput, "the tokenizer has {} tokens and the model {}; give the tokenizer that belongs to the model, or a larger vocab_size",
          tokenizer->vocab_size(), vocab_size);
  }
  TextConfig c;
  c.stream.dataset_path = config.String("dataset_path");
  c.stream.seed = Seed(config);
  c.length = config.Int("max_target_length");
  c.rank = ranks.rank;
  c.ranks = ranks.ranks;
  c.packing = config.Bool("packing") ? ParsePacking(config.String("grain_packing_type")) : Packing::kNone;
  c.max_segments = config.Int("max_segments_per_seq");
  c.bos_id = TokenOrNone(config.Bool("add_bos"), tokenizer->bos_id());
  c.eos_id = TokenOrNone(config.Bool("add_eos"), tokenizer->eos_id());
  return c;
}

double HeldOutFraction(const RunConfig& config) {
  const double fraction = config.Float("eval_fraction");
  if (!(fraction > 0 && fraction < 1)) Throw(ErrorCode::kUsage, "eval_fraction={}: must lie between 0 and 1, or give eval_dataset_path", fraction);
  return fraction;
}

EncodeFunction EncodeWith(const Tokenizer* tokenizer) {
  return [tokenizer](std::string_view text) { return tokenizer->Encode(text, {.add_bos = false, .added_tokens = false}); };
}

}  // namespace

std::unique_ptr<BatchSource> MakeTrainSource(const RunConfig& config, const Tokenizer* tokenizer, int64_t vocab_size, DataRanks ranks) {
  const int64_t rows = TrainRows(config);
  if (IsSynthetic(config)) return MakeSynthetic(config, rows, vocab_size, ranks);
  TextConfig c = CommonTextConfig(config, tokenizer, vocab_size, ranks);
  c.rows = rows;
  c.whole_batches = true;
  c.epochs = std::max<int64_t>(config.Int("num_epoch"), 0);
  c.stream.text_field = TextField(config, "train_data_columns");
  c.stream.shuffle = config.Bool("enable_data_shuffling");
  if (config.Int("eval_interval") > 0 && config.String("eval_dataset_path").empty()) {
    c.stream.held_out_fraction = HeldOutFraction(config);
    c.stream.split = Split::kTrain;
  }
  return std::make_unique<TextSource>(c, EncodeWith(tokenizer));
}

std::unique_ptr<BatchSource> MakeEvalSource(const RunConfig& config, const Tokenizer* tokenizer, int64_t vocab_size, DataRanks ranks) {
  const int64_t rows = EvalRows(config);
  if (IsSynthetic(config)) {
    if (config.Int("eval_steps") < 1) Throw(ErrorCode::kUsage, "eval_steps: synthetic data has no end, say how many batches an evaluation takes");
    return MakeSynthetic(config, rows, vocab_size, ranks);
  }
  TextConfig c = CommonTextConfig(config, tokenizer, vocab_size, ranks);
  c.rows = rows;
  c.epochs = 1;
  c.stream.shuffle = false;
  if (config.String("eval_dataset_path").empty()) {
    c.stream.text_field = TextField(config, "train_data_columns");
    c.stream.held_out_fraction = HeldOutFraction(config);
    c.stream.split = Split::kHeldOut;
  } else {
    c.stream.text_field = TextField(config, "eval_data_columns");
    c.stream.dataset_path = config.String("eval_dataset_path");
  }
  return std::make_unique<TextSource>(c, EncodeWith(tokenizer));
}

}  // namespace fathom
