// fathom eval perplexity: how well a checkpoint predicts text, and how far its predictions are from another's.
#include <fmt/format.h>

#include <cmath>
#include <functional>

#include "apps/command.h"
#include "apps/eval_mesh.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/progress.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/data/document_stream.h"
#include "fathom/data/shared_ids.h"
#include "fathom/eval/divergence.h"
#include "fathom/eval/perplexity.h"
#include "fathom/model/layer_flags.h"
#include "fathom/tokenizer/tokenizer.h"
#include "fathom/train/rank_report.h"

namespace fathom {
namespace {

// input=, or eval_dataset_path= as in training.
StreamConfig ReadStream(const RunConfig& config) {
  const bool as_input = !config.Strings("input").empty();
  StreamConfig stream;
  stream.dataset_path = as_input ? fmt::format("{}", fmt::join(config.Strings("input"), ",")) : config.String("eval_dataset_path");
  stream.path_flag = as_input ? "input" : "eval_dataset_path";
  stream.text_field = OneColumn(config.Strings("eval_data_columns"), "eval_data_columns");
  stream.shuffle = false;
  if (stream.dataset_path.empty()) Throw(ErrorCode::kUsage, "eval perplexity needs input= (files, folders or globs)");
  return stream;
}

// Whole documents: a long plain text comes in parts.
bool NextDocument(DocumentStream& stream, std::string& text) {
  text.clear();
  for (Document part; stream.Next(&part);) {
    text += part.text;
    if (part.ends) return true;
  }
  return !text.empty();
}

double TotalBytes(const StreamConfig& stream) {
  double bytes = 0;
  for (const DataFile& file : FindDataFiles(stream.dataset_path, stream.path_flag)) bytes += static_cast<double>(file.bytes);
  return bytes;
}

constexpr size_t kPartBytes = 4 << 20;  // of text that is tokenised at a time, at least

struct DocumentBytes {
  int64_t text = 0;
  int64_t target = 0;  // of it: what its targets stand for
};

// Documents one after the other, tokenised.
class TokenReader {
 public:
  TokenReader(const RunConfig& config, const Tokenizer& tokenizer)
      : tokenizer_(tokenizer),
        bos_(config.Bool("add_bos") && tokenizer.bos_id().has_value()),
        eos_(config.Bool("add_eos") && tokenizer.eos_id().has_value()),
        stream_(ReadStream(config)) {}

  // Those of the next part; overwrites bytes. None: the text has ended.
  IdLists Next(std::vector<DocumentBytes>& bytes) {
    std::vector<std::string> texts;
    size_t size = 0;
    for (std::string text; size < kPartBytes && NextDocument(stream_, text); size += texts.back().size()) texts.push_back(text);
    IdLists lists = tokenizer_.EncodeBatch(std::vector<std::string_view>(texts.begin(), texts.end()), {.add_bos = bos_});
    bytes.clear();
    for (size_t i = 0; i < lists.size(); ++i) {
      if (eos_) lists[i].push_back(*tokenizer_.eos_id());
      bytes.push_back({std::ssize(texts[i]), std::ssize(texts[i]) - FirstTokenBytes(lists[i])});
    }
    bytes_read_ += static_cast<int64_t>(size);
    return lists;
  }
  int64_t bytes_read() const { return bytes_read_; }

 private:
  // Of text that no target stands for: a first token's other than BOS.
  int64_t FirstTokenBytes(const std::vector<int32_t>& ids) const {
    return bos_ || ids.empty() ? 0 : static_cast<int64_t>(tokenizer_.TokenBytes(ids[0]).size());
  }

  const Tokenizer& tokenizer_;
  bool bos_, eos_;
  DocumentStream stream_;
  int64_t bytes_read_ = 0;
};

using AddDocument = std::function<void(std::span<const int32_t>, const DocumentBytes&)>;

// Every document, read and tokenised once on a machine. Returns the bytes of text that this rank has read. Collective.
int64_t ForEachDocument(const RunConfig& config, const Tokenizer& tokenizer, const Mesh& mesh, const AddDocument& add) {
  const Comm host = HostPart(mesh.world());
  std::optional<TokenReader> reader;
  DoOnFirst(host, [&] { reader.emplace(config, tokenizer); });
  for (;;) {
    std::vector<DocumentBytes> bytes;
    const SharedIds ids = SharedIds::FromFirst(host, [&] { return reader->Next(bytes); });
    if (ids.size() == 0) return reader ? reader->bytes_read() : 0;
    bytes.resize(ids.size());
    BytesFromFirst(host, std::as_writable_bytes(std::span(bytes)));
    for (size_t i = 0; i < ids.size(); ++i) add(ids[i], bytes[i]);
  }
}

PerplexityOptions WindowsOf(const RunConfig& config, const Mesh& mesh, Progress& progress) {
  const int64_t window = config.Int("max_target_length"), stride = config.Int("stride");
  const auto sum = [&mesh](std::span<double> x) { SumOverAskers(mesh, x); };
  return {window, stride == 0 ? window : stride, [&](double bytes) { progress.Update(bytes); }, {AskerOf(mesh), AskersOf(mesh), sum}};
}

Json ToJson(const PerplexityResult& r, double seconds) {
  return {{"nll", r.NllPerToken()},   {"perplexity", r.Perplexity()}, {"bits_per_byte", r.BitsPerByte()}, {"tokens", r.targets},
          {"documents", r.documents}, {"text_bytes", r.text_bytes},   {"target_bytes", r.target_bytes},   {"seconds", seconds}};
}

void CheckVocabulary(const Tokenizer& tokenizer, const ModelConfig& model) {
  if (tokenizer.vocab_size() <= model.vocab_size) return;
  Throw(ErrorCode::kUsage, "the tokenizer has {} tokens, the model's vocab_size is {}", tokenizer.vocab_size(), model.vocab_size);
}

void CheckNll(const std::string& dir, double nll) {
  if (!std::isfinite(nll))
    Throw(ErrorCode::kFailed, "{}: the loss on this text is {}; fathom check files looks for broken weights", dir, nll);
}

// Writes json= on the first rank, with what each of several has read; says whether standard output is free for the figures. Collective.
bool WriteJson(const RunConfig& config, const Mesh& mesh, Json result, int64_t bytes_read) {
  const std::string& json = config.String("json");
  ReadByRank read(mesh);
  read.Note("bytes_tokenised", bytes_read);
  if (!mesh.is_first()) return false;
  if (!read.json().is_null()) result["ranks"] = read.json();
  if (!json.empty()) WriteOutput(json, JsonText(result));
  return json != "-" && json != "/dev/stdout";
}

int RunPerplexity(const RunConfig& config, const Mesh& mesh, const Checkpoint& checkpoint, const Tokenizer& tokenizer, Progress& progress) {
  ForwardModel model(checkpoint, ParseComputeDType(config, "dtype"), {}, config.String("hf_lora_adapter_path"), mesh);
  const Stopwatch clock;
  PerplexityMeter meter(model, WindowsOf(config, mesh, progress));
  const int64_t bytes_read =
      ForEachDocument(config, tokenizer, mesh, [&](auto ids, const DocumentBytes& bytes) { meter.Add(ids, bytes.text, bytes.target); });
  const PerplexityResult result = meter.Finish();
  progress.Finish();
  const double seconds = clock.Seconds();
  CheckNll(config.String("load_parameters_path"), result.NllPerToken());
  if (!WriteJson(config, mesh, ToJson(result, seconds), bytes_read)) return 0;
  fmt::print("nll per token  {:.4f}\nperplexity     {:.3f}\nbits per byte  {:.4f}\n", result.NllPerToken(), result.Perplexity(),
             result.BitsPerByte());
  fmt::print("{} tokens of {} documents, {} of text, {:.0f} tokens/s\n", result.targets, result.documents,
             FormatBytes(static_cast<double>(result.text_bytes)), static_cast<double>(result.targets) / seconds);
  return 0;
}

Json ToJson(const DivergenceResult& r, double seconds) {
  const auto targets = static_cast<double>(r.targets);
  return {{"mean_kl", r.MeanKl()},
          {"max_kl", r.worst_kl},
          {"max_kl_at", {{"document", r.worst_document}, {"token", r.worst_token}}},
          {"top1_agreement", r.Agreement()},
          {"nll", r.nll / targets},
          {"perplexity", std::exp(r.nll / targets)},
          {"against", {{"nll", r.reference_nll / targets}, {"perplexity", std::exp(r.reference_nll / targets)}}},
          {"tokens", r.targets},
          {"documents", r.documents},
          {"seconds", seconds}};
}

// against=: how far the model is from another one.
int RunDivergence(const RunConfig& config, const Mesh& mesh, Checkpoint checkpoint, const Tokenizer& tokenizer, Progress& progress) {
  const int64_t window = config.Int("max_target_length");
  const DType dtype = ParseComputeDType(config, "dtype");
  const ReadableCheckpoint readable(config, "against");
  Checkpoint against = OpenReference(config, readable.dir());
  CheckEvalMesh(config, mesh, against.config());
  const MappedModel reference(std::move(against), dtype, window, {}, {}, {}, mesh);
  CheckVocabulary(tokenizer, reference.config());
  const MappedModel model(std::move(checkpoint), dtype, window, {}, {}, config.String("hf_lora_adapter_path"), mesh);
  const Stopwatch clock;
  DivergenceMeter meter(reference, model, WindowsOf(config, mesh, progress));
  const int64_t bytes_read =
      ForEachDocument(config, tokenizer, mesh, [&](auto ids, const DocumentBytes& bytes) { meter.Add(ids, bytes.text); });
  const DivergenceResult r = meter.Finish();
  progress.Finish();
  if (!WriteJson(config, mesh, ToJson(r, clock.Seconds()), bytes_read)) return 0;
  fmt::print("mean KL         {:.3e}\nworst KL        {:.3e}  document {}, behind its token {}\ntop-1 agreement {:.3f} %\n", r.MeanKl(),
             r.worst_kl, r.worst_document, r.worst_token, 100 * r.Agreement());
  const auto targets = static_cast<double>(r.targets);
  fmt::print("perplexity      {:.3f}, of {} {:.3f}\n{} tokens of {} documents\n", std::exp(r.nll / targets), config.String("against"),
             std::exp(r.reference_nll / targets), r.targets, r.documents);
  return 0;
}

int RunOnRanks(const RunConfig& config, const Mesh& mesh) {
  const std::filesystem::path dir = config.String("load_parameters_path"), tokenizer_path = config.String("tokenizer_path");
  if (dir.empty()) Throw(ErrorCode::kUsage, "eval perplexity needs load_parameters_path= (a checkpoint's folder)");
  Checkpoint checkpoint = OpenCheckpoint(config, dir);
  CheckEvalMesh(config, mesh, checkpoint.config());
  const Tokenizer tokenizer = Tokenizer::Load(tokenizer_path.empty() ? dir : tokenizer_path);
  CheckVocabulary(tokenizer, checkpoint.config());
  Progress progress("evaluating", "MB", TotalBytes(ReadStream(config)), 1e6);
  if (!config.String("against").empty()) return RunDivergence(config, mesh, std::move(checkpoint), tokenizer, progress);
  return RunPerplexity(config, mesh, checkpoint, tokenizer, progress);
}

int Run(const RunConfig& config) { return RunOnRanks(config, {}); }

}  // namespace

Command EvalPerplexityCommand() {
  return {.name = "eval perplexity",
          .summary = "negative log likelihood, perplexity and bits per byte of a checkpoint on text",
          .flags = WithMeshFlags({"load_parameters_path", "ignore_config_keys", "tokenizer_path", "input", "eval_dataset_path",
                                  "eval_data_columns", "max_target_length", "stride", "add_bos", "add_eos", "dtype", "hf_lora_adapter_path",
                                  "against"}),
          .run = Run,
          .run_rank = RunOnRanks};
}

}  // namespace fathom
