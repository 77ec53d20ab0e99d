#include "fathom/train/sources.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/data/mixture.h"
#include "fathom/data/ramped_source.h"
#include "fathom/data/split_files.h"
#include "fathom/data/synthetic.h"
#include "fathom/data/text.h"
#include "fathom/data/token_file.h"
#include "fathom/parallel/host.h"
#include "fathom/train/conversations.h"

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
  Throw(ErrorCode::kUsage, "dataset_type={} needs a tokenizer: give tokenizer_path= (fathom tokenizer train makes one)",
        config.String("dataset_type"));
}

int32_t TokenId(bool wanted, std::optional<int32_t> id, const char* flag) {
  if (!wanted) return -1;
  if (!id) Throw(ErrorCode::kUsage, "{}=true: the tokenizer's tokenizer_config.json names no such token; give {}=false", flag, flag);
  return *id;
}

// The rows of each batch that this rank reads.
struct RowShare {
  int64_t rows;
  int rank, ranks;
};

// A batch that grows is divided behind the source, which gives all of its rows.
RowShare TrainingShare(const RunConfig& config, const TrainOptions& options) {
  const int64_t rows = options.rows * options.accumulation, ranks = options.mesh.row_ranks();
  if (config.Bool("enable_rampup_batch_size")) return {rows * ranks, 0, 1};
  return {rows, static_cast<int>(options.mesh.row_rank()), static_cast<int>(ranks)};
}

// What text and conversations have in common.
TextConfig ReadRowSettings(const RunConfig& config, const TrainOptions& options) {
  TextConfig text;
  text.stream.seed = static_cast<uint64_t>(config.Int("data_shuffle_seed"));
  text.stream.shuffle = config.Bool("enable_data_shuffling");
  const RowShare share = TrainingShare(config, options);
  text.rows = share.rows;
  text.rank = share.rank;
  text.ranks = share.ranks;
  text.length = options.length;
  text.packing = config.Bool("packing") ? ParsePacking(config.String("grain_packing_type")) : Packing::kNone;
  text.max_segments = config.Int("max_segments_per_seq");
  text.epochs = config.Given("num_epoch") ? config.Int("num_epoch") : 0;
  text.threads = NumThreads();
  return text;
}

bool ReadsHub(const RunConfig& config) { return config.String("dataset_type") == "hf"; }

// dataset_type=hf: the files of a split, or those that another flag names, for training or for evaluation.
void FindHubFiles(const RunConfig& config, bool eval, StreamConfig& stream) {
  const char *files_flag = eval ? "hf_eval_files" : "hf_train_files", *split_flag = eval ? "hf_eval_split" : "train_split";
  stream.dataset_path = config.String(files_flag);
  stream.path_flag = files_flag;
  stream.files.clear();
  if (!stream.dataset_path.empty()) return;
  const HubData data{config.String("hf_path"), config.String("hf_data_dir"), config.String("hf_name")};
  stream.dataset_path = data.path;
  stream.path_flag = "hf_path";
  stream.files = FindSplitFiles(data, config.String(split_flag), split_flag);
}

TextConfig ReadText(const RunConfig& config, const TrainOptions& options, const Tokenizer& tokenizer) {
  TextConfig text = ReadRowSettings(config, options);
  if (ReadsHub(config)) {
    FindHubFiles(config, false, text.stream);
  } else {
    text.stream.dataset_path = config.String("dataset_path");
  }
  text.stream.text_field = OneColumn(config.Strings("train_data_columns"), "train_data_columns");
  text.bos_id = TokenId(config.Bool("add_bos"), tokenizer.bos_id(), "add_bos");
  text.eos_id = TokenId(config.Bool("add_eos"), tokenizer.eos_id(), "add_eos");
  return text;
}

ConversationConfig ReadConversations(const RunConfig& config, const TrainOptions& options, const std::filesystem::path& tokenizer_dir) {
  return {.form = ParseConversationForm(config.Strings("train_data_columns"), "train_data_columns"),
          .which = ChooseChatTemplate(config.String("chat_template"), config.String("chat_template_path"), tokenizer_dir),
          .completion_only = config.Bool("sft_train_on_completion_only"),
          .rounds_alone = config.String("compat") == "maxtext",
          .truncate = config.Bool("use_truncation"),
          .length = options.length};
}

TextConfig ReadConversationRows(const RunConfig& config, const TrainOptions& options, const ConversationConfig& conversations) {
  TextConfig rows = ReadRowSettings(config, options);
  FindHubFiles(config, false, rows.stream);
  if (rows.packing == Packing::kConcatThenSplit)
    Throw(ErrorCode::kUsage, "grain_packing_type=concat_then_split would cut conversations in two; allowed with use_sft=true is first_fit");
  rows.stream.row_columns = RowColumns(config.Strings("train_data_columns"));
  rows.kind = "conversations";
  rows.settings = DescribeSettings(conversations);
  rows.skip_bad = config.Bool("skip_bad_rows");
  rows.fill_batch = false;
  return rows;
}

// Has the evaluation data of its own?
bool HasEvalData(const RunConfig& config) {
  if (!ReadsHub(config)) return !config.String("eval_dataset_path").empty();
  return !config.String("hf_eval_split").empty() || !config.String("hf_eval_files").empty();
}

// The evaluation set: files of its own, or the part of the training files that training leaves out.
TextConfig EvalText(const RunConfig& config, const TrainOptions& options, TextConfig text) {
  text.rows = options.eval_rows;
  text.rank = static_cast<int>(options.mesh.row_rank());
  text.ranks = static_cast<int>(options.mesh.row_ranks());
  text.stream.shuffle = false;
  text.epochs = 1;
  if (!HasEvalData(config)) {
    text.stream.split = Split::kHeldOut;
    return text;
  }
  text.stream.held_out_fraction = 0;
  text.stream.split = Split::kAll;
  if (ReadsHub(config)) {
    FindHubFiles(config, true, text.stream);
  } else {
    text.stream.dataset_path = config.String("eval_dataset_path");
    text.stream.path_flag = "eval_dataset_path";
  }
  return text;
}

// Before step 0 rather than at the first evaluation.
void CheckHasText(const StreamConfig& stream, int64_t eval_interval) {
  Document first;
  if (DocumentStream(stream).Next(&first)) return;
  if (stream.split == Split::kAll) Throw(ErrorCode::kInput, "{}={}: no text", stream.path_flag, stream.dataset_path);
  Throw(ErrorCode::kUsage, "eval_interval={}: held_out_fraction={} of {} holds no text out; give a larger fraction or {}=", eval_interval,
        stream.held_out_fraction, stream.dataset_path, stream.path_flag == "dataset_path" ? "eval_dataset_path" : "hf_eval_split");
}

// The tokenizer, its files and its hash. Returns its folder.
std::filesystem::path OpenTokenizer(const RunConfig& config, const TrainOptions& options, const ModelConfig& model, DataSources& sources) {
  const std::filesystem::path dir = TokenizerDir(config, options);
  sources.tokenizer = std::make_shared<const Tokenizer>(Tokenizer::Load(dir));
  sources.companions = HubCompanionFiles(dir);
  if (sources.tokenizer->vocab_size() > model.vocab_size) {
    Throw(ErrorCode::kUsage, "{}: {} tokens, the model's vocab_size is {}", dir.string(), sources.tokenizer->vocab_size(),
          model.vocab_size);
  }
  return dir;
}

// The rows of text, or of the parts of a mixture that dataset_path names.
std::unique_ptr<BatchSource> MakeTrainSource(const TextConfig& text, const SampleFunction& sample) {
  const std::vector<MixturePart> parts =
      text.stream.files.empty() ? ParseMixture(text.stream.dataset_path, text.stream.path_flag) : std::vector<MixturePart>();
  if (parts.empty()) return std::make_unique<TextSource>(text, sample);
  if (text.stream.split != Split::kAll)
    Throw(ErrorCode::kUsage, "eval_interval needs eval_dataset_path= where dataset_path is a mixture: nothing of it is held out");
  std::vector<std::unique_ptr<BatchSource>> sources;
  std::vector<double> weights;
  for (const MixturePart& part : parts) {
    TextConfig one = text;
    one.stream.dataset_path = part.path;
    one.rows = one.ranks = 1;
    one.rank = 0;
    sources.push_back(std::make_unique<TextSource>(one, sample));
    weights.push_back(part.weight);
  }
  return std::make_unique<MixtureSource>(MixtureConfig{text.rows, text.length, text.rank, text.ranks}, std::move(sources),
                                         std::move(weights));
}

// Sources of what `sample` makes of the documents that `text` names, for training and, if asked for, evaluation.
void OpenRowSources(const RunConfig& config, const TrainOptions& options, TextConfig text, const SampleFunction& sample,
                    DataSources& sources) {
  text.host = sources.host;
  if (options.eval_interval > 0 && !HasEvalData(config)) {
    text.stream.held_out_fraction = config.Float("held_out_fraction");
    text.stream.split = Split::kTrain;
  }
  sources.train = MakeTrainSource(text, sample);
  if (options.eval_interval <= 0) return;
  TextConfig eval = EvalText(config, options, text);
  if (text.kind != "conversations")
    eval.token_bytes = [tokenizer = sources.tokenizer](int32_t id) { return static_cast<int64_t>(tokenizer->TokenBytes(id).size()); };
  DoOnFirst(sources.host, [&] { CheckHasText(eval.stream, options.eval_interval); });
  sources.eval = std::make_unique<TextSource>(eval, sample);
}

uint64_t TokenizerHash(const std::filesystem::path& dir) { return HashName(ReadTextFile(dir / kTokenizerFile)); }

void OpenText(const RunConfig& config, const TrainOptions& options, const ModelConfig& model, DataSources& sources) {
  const std::filesystem::path dir = OpenTokenizer(config, options, model, sources);
  TextConfig text = ReadText(config, options, *sources.tokenizer);
  text.tokenizer_hash = TokenizerHash(dir);
  const SampleFunction sample = [tokenizer = sources.tokenizer](const Document& document) {
    return Sample{tokenizer->Encode(document.text), {}};
  };
  OpenRowSources(config, options, text, sample, sources);
}

// What `fathom tokenizer encode output=X.tokens` wrote, with this tokenizer.
void CheckTokenFiles(const TextConfig& text) {
  std::vector<std::string> paths;
  for (const MixturePart& part : ParseMixture(text.stream.dataset_path, text.stream.path_flag)) paths.push_back(part.path);
  if (paths.empty()) paths.push_back(text.stream.dataset_path);
  for (const DataFile& file : FindDataFiles(fmt::format("{}", fmt::join(paths, ",")), text.stream.path_flag)) {
    if (file.kind == FileKind::kTokens && TokenFile::Open(file.path)->tokenizer_hash() == text.tokenizer_hash) continue;
    Throw(ErrorCode::kInput, "{}: {}; fathom tokenizer encode tokenizer_path= input= output=X.tokens writes such files", file.path.string(),
          file.kind == FileKind::kTokens ? "tokens of another tokenizer than tokenizer_path's" : "no file of tokens");
  }
}

void OpenTokens(const RunConfig& config, const TrainOptions& options, const ModelConfig& model, DataSources& sources) {
  const std::filesystem::path dir = OpenTokenizer(config, options, model, sources);
  TextConfig text = ReadText(config, options, *sources.tokenizer);
  text.kind = "tokens";
  text.stream.row_columns = {"ids"};
  text.tokenizer_hash = TokenizerHash(dir);
  DoOnFirst(sources.host, [&] { CheckTokenFiles(text); });
  const SampleFunction sample = [vocab = model.vocab_size](const Document& document) {
    Sample tokens{IdsOfBytes(document.text), {}};
    if (std::ranges::any_of(tokens.ids, [&](int32_t id) { return id < 0 || id >= vocab; }))
      Throw(ErrorCode::kInput, "an id beyond the model's vocab_size {}: damaged", vocab);
    return tokens;
  };
  OpenRowSources(config, options, text, sample, sources);
}

void OpenConversations(const RunConfig& config, const TrainOptions& options, const ModelConfig& model, DataSources& sources) {
  if (!ReadsHub(config))
    Throw(ErrorCode::kUsage,
          "dataset_type={}: use_sft=true reads conversations: dataset_type=hf with hf_path=", config.String("dataset_type"));
  const std::filesystem::path dir = OpenTokenizer(config, options, model, sources);
  const ConversationConfig conversations = ReadConversations(config, options, dir);
  sources.chat = conversations.which;
  TextConfig rows = ReadConversationRows(config, options, conversations);
  rows.tokenizer_hash = TokenizerHash(dir);
  DoOnFirst(sources.host, [&] {
    CheckFirstRows(conversations, rows.stream, rows.skip_bad);
    if (options.eval_interval > 0 && HasEvalData(config))
      CheckFirstRows(conversations, EvalText(config, options, rows).stream, rows.skip_bad);
  });
  OpenRowSources(config, options, rows, ConversationSampler(conversations, sources.tokenizer), sources);
}

void OpenSynthetic(const RunConfig& config, const TrainOptions& options, const ModelConfig& model, DataSources& sources) {
  const RowShare share = TrainingShare(config, options);
  SyntheticConfig synthetic{share.rows, options.length, model.vocab_size, static_cast<uint64_t>(config.Int("data_shuffle_seed")),
                            share.rank};
  sources.train = std::make_unique<SyntheticSource>(synthetic);
  synthetic.rows = options.rows * options.accumulation;
  synthetic.rank = static_cast<int>(options.mesh.row_rank());
  if (options.eval_interval > 0) sources.eval = std::make_unique<SyntheticSource>(synthetic);
  if (!options.load_parameters_path.empty()) sources.companions = HubCompanionFiles(options.load_parameters_path);
}

int64_t WholeRows(const RunConfig& config, const char* flag) {
  const double rows = config.Float(flag);
  if (rows != std::floor(rows)) Throw(ErrorCode::kUsage, "{}={}: allowed is a whole number of sequences", flag, rows);
  return static_cast<int64_t>(rows);
}

void RampUp(const RunConfig& config, const TrainOptions& options, DataSources& sources) {
  if (options.accumulation > 1)
    Throw(ErrorCode::kUsage, "enable_rampup_batch_size=true with gradient_accumulation_steps={}: give one of them", options.accumulation);
  RampRule rule{WholeRows(config, "per_device_batch_size_start"), WholeRows(config, "per_device_batch_size_increment"),
                WholeRows(config, "per_device_batch_size"), config.Int("global_rampup_samples")};
  CheckRamp(rule);
  for (int64_t* rows : {&rule.first, &rule.increment, &rule.last}) *rows *= options.mesh.world().size();
  rule.rank = options.mesh.row_rank();
  rule.ranks = options.mesh.row_ranks();
  sources.train = std::make_unique<RampedSource>(rule, std::move(sources.train));
}

}  // namespace

void CheckDataNamed(const RunConfig& config) {
  const std::string& type = config.String("dataset_type");
  if (config.Bool("use_sft") && type != "hf")
    Throw(ErrorCode::kUsage, "dataset_type={}: use_sft=true reads conversations: dataset_type=hf with hf_path=", type);
  if (type == "synthetic") return;
  if (type == "hf" && config.String("hf_path").empty() && config.String("hf_train_files").empty())
    Throw(ErrorCode::kUsage, "dataset_type=hf needs hf_path= (a file, or a folder as hf download leaves it) or hf_train_files=");
  if ((type == "text" || type == "tokens") && config.String("dataset_path").empty())
    Throw(ErrorCode::kUsage, "dataset_type={} needs dataset_path= (files, folders or globs)", type);
}

DataSources OpenSources(const RunConfig& config, const TrainOptions& options, const ModelConfig& model) {
  DataSources sources;
  sources.host = HostPart(options.mesh.world());
  const std::string& type = config.String("dataset_type");
  if (type == "synthetic") {
    OpenSynthetic(config, options, model, sources);
  } else if (config.Bool("use_sft")) {
    OpenConversations(config, options, model, sources);
  } else if (type == "tokens") {
    OpenTokens(config, options, model, sources);
  } else if (type == "text" || type == "hf") {
    OpenText(config, options, model, sources);
  } else {
    Throw(ErrorCode::kUsage, "dataset_type={}: fathom train reads text, tokens, hf and synthetic", type);
  }
  if (config.Bool("enable_rampup_batch_size")) RampUp(config, options, sources);
  return sources;
}

}  // namespace fathom
