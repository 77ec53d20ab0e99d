#include "fathom/train/sources.h"

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/data/synthetic.h"
#include "fathom/data/text.h"

namespace fathom {
namespace {

constexpr const char* kTokenizerFile = "tokenizer.json";

// tokenizer_path may name the file itself; a checkpoint holds it under this name only.
std::filesystem::path TokenizerDir(const RunConfig& config, const TrainOptions& options) {
  const std::filesystem::path given = config.String("tokenizer_path");
  if (given.filename() == kTokenizerFile && !std::filesystem::is_directory(given)) {
    return given.has_parent_path() ? given.parent_path() : ".";
  }
  if (std::filesystem::is_regular_file(given)) {
    Throw(ErrorCode::kUsage, "tokenizer_path={}: expected a file named {} or its folder", given.string(), kTokenizerFile);
  }
  if (!given.empty()) return given;
  if (!options.load_parameters_path.empty()) return options.load_parameters_path;
  Throw(ErrorCode::kUsage, "dataset_type=text needs a tokenizer: give tokenizer_path= (fathom tokenizer train makes one)");
}

int32_t TokenId(bool wanted, std::optional<int32_t> id, const char* flag) {
  if (!wanted) return -1;
  if (!id) Throw(ErrorCode::kUsage, "{}=true: the tokenizer's tokenizer_config.json names no such token; give {}=false", flag, flag);
  return *id;
}

TextConfig ReadText(const RunConfig& config, const TrainOptions& options, const Tokenizer& tokenizer) {
  TextConfig text;
  text.stream.dataset_path = config.String("dataset_path");
  if (text.stream.dataset_path.empty()) Throw(ErrorCode::kUsage, "dataset_type=text needs dataset_path= (files, folders or globs)");
  text.stream.text_field = OneColumn(config.Strings("train_data_columns"), "train_data_columns");
  text.stream.seed = static_cast<uint64_t>(config.Int("data_shuffle_seed"));
  text.stream.shuffle = config.Bool("enable_data_shuffling");
  text.rows = options.rows * options.accumulation;
  text.length = options.length;
  text.packing = config.Bool("packing") ? ParsePacking(config.String("grain_packing_type")) : Packing::kNone;
  text.max_segments = config.Int("max_segments_per_seq");
  text.epochs = config.Given("num_epoch") ? config.Int("num_epoch") : 0;
  text.bos_id = TokenId(config.Bool("add_bos"), tokenizer.bos_id(), "add_bos");
  text.eos_id = TokenId(config.Bool("add_eos"), tokenizer.eos_id(), "add_eos");
  text.threads = NumThreads();
  return text;
}

// The evaluation set: files of its own, or the part of the training files that training leaves out.
TextConfig EvalText(const RunConfig& config, const TrainOptions& options, TextConfig text) {
  text.rows = options.eval_rows;
  text.stream.shuffle = false;
  text.epochs = 1;
  if (config.String("eval_dataset_path").empty()) {
    text.stream.split = Split::kHeldOut;
  } else {
    text.stream.dataset_path = config.String("eval_dataset_path");
    text.stream.path_flag = "eval_dataset_path";
    text.stream.held_out_fraction = 0;
    text.stream.split = Split::kAll;
  }
  return text;
}

// Before step 0 rather than at the first evaluation.
void CheckHasText(const StreamConfig& stream, int64_t eval_interval) {
  Document first;
  if (DocumentStream(stream).Next(&first)) return;
  if (stream.split == Split::kAll) Throw(ErrorCode::kInput, "{}={}: no text", stream.path_flag, stream.dataset_path);
  Throw(ErrorCode::kUsage,
        "eval_interval={}: held_out_fraction={} of {} holds no text out; give a larger fraction or eval_dataset_path=", eval_interval,
        stream.held_out_fraction, stream.dataset_path);
}

void OpenText(const RunConfig& config, const TrainOptions& options, const ModelConfig& model, DataSources& sources) {
  const std::filesystem::path dir = TokenizerDir(config, options);
  const auto tokenizer = std::make_shared<const Tokenizer>(Tokenizer::Load(dir));
  sources.companions = HubCompanionFiles(dir);
  sources.tokenizer = tokenizer;
  if (tokenizer->vocab_size() > model.vocab_size) {
    Throw(ErrorCode::kUsage, "{}: {} tokens, the model's vocab_size is {}", dir.string(), tokenizer->vocab_size(), model.vocab_size);
  }
  const EncodeFunction encode = [tokenizer](std::string_view text) { return tokenizer->Encode(text); };
  TextConfig text = ReadText(config, options, *tokenizer);
  text.tokenizer_hash = HashName(ReadTextFile(dir / kTokenizerFile));
  if (options.eval_interval > 0 && config.String("eval_dataset_path").empty()) {
    text.stream.held_out_fraction = config.Float("held_out_fraction");
    text.stream.split = Split::kTrain;
  }
  sources.train = std::make_unique<TextSource>(text, encode);
  if (options.eval_interval <= 0) return;
  TextConfig eval = EvalText(config, options, text);
  eval.token_bytes = [tokenizer](int32_t id) { return static_cast<int64_t>(tokenizer->TokenBytes(id).size()); };
  CheckHasText(eval.stream, options.eval_interval);
  sources.eval = std::make_unique<TextSource>(eval, encode);
}

void OpenSynthetic(const RunConfig& config, const TrainOptions& options, const ModelConfig& model, DataSources& sources) {
  SyntheticConfig synthetic{options.rows * options.accumulation, options.length, model.vocab_size,
                            static_cast<uint64_t>(config.Int("data_shuffle_seed"))};
  sources.train = std::make_unique<SyntheticSource>(synthetic);
  if (options.eval_interval > 0) sources.eval = std::make_unique<SyntheticSource>(synthetic);
  if (!options.load_parameters_path.empty()) sources.companions = HubCompanionFiles(options.load_parameters_path);
}

}  // namespace

DataSources OpenSources(const RunConfig& config, const TrainOptions& options, const ModelConfig& model) {
  DataSources sources;
  const std::string& type = config.String("dataset_type");
  if (type == "synthetic") {
    OpenSynthetic(config, options, model, sources);
  } else if (type == "text") {
    OpenText(config, options, model, sources);
  } else {
    Throw(ErrorCode::kUsage, "dataset_type={}: fathom train reads text and synthetic", type);
  }
  return sources;
}

}  // namespace fathom
