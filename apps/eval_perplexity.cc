// fathom eval perplexity: how well a checkpoint predicts text, and how far its predictions are from another's.
#include <fmt/format.h>

#include <cmath>
#include <functional>

#include "apps/command.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/progress.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/data/document_stream.h"
#include "fathom/eval/divergence.h"
#include "fathom/eval/perplexity.h"
#include "fathom/model/layer_flags.h"
#include "fathom/tokenizer/tokenizer.h"

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

std::vector<int32_t> Encode(const RunConfig& config, const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids = tokenizer.Encode(text, {.add_bos = config.Bool("add_bos") && tokenizer.bos_id().has_value()});
  if (config.Bool("add_eos") && tokenizer.eos_id()) ids.push_back(*tokenizer.eos_id());
  return ids;
}

// Of text that no target stands for: a first token's other than BOS.
int64_t FirstTokenBytes(const RunConfig& config, const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  const bool bos = config.Bool("add_bos") && tokenizer.bos_id().has_value();
  return bos || ids.empty() ? 0 : static_cast<int64_t>(tokenizer.TokenBytes(ids[0]).size());
}

double TotalBytes(const StreamConfig& stream) {
  double bytes = 0;
  for (const DataFile& file : FindDataFiles(stream.dataset_path, stream.path_flag)) bytes += static_cast<double>(file.bytes);
  return bytes;
}

// A document's tokens, the bytes of its text, and of the part that its targets stand for.
using AddDocument = std::function<void(const std::vector<int32_t>&, int64_t, int64_t)>;

void ForEachDocument(const RunConfig& config, const Tokenizer& tokenizer, const AddDocument& add) {
  DocumentStream stream(ReadStream(config));
  for (std::string text; NextDocument(stream, text);) {
    const std::vector<int32_t> ids = Encode(config, tokenizer, text);
    const auto bytes = static_cast<int64_t>(text.size());
    add(ids, bytes, bytes - FirstTokenBytes(config, tokenizer, ids));
  }
}

PerplexityOptions WindowsOf(const RunConfig& config, Progress& progress) {
  const int64_t window = config.Int("max_target_length"), stride = config.Int("stride");
  return {window, stride == 0 ? window : stride, [&](double bytes) { progress.Update(bytes); }};
}

PerplexityResult Measure(const RunConfig& config, ForwardModel& model, const Tokenizer& tokenizer, Progress& progress) {
  PerplexityMeter meter(model, WindowsOf(config, progress));
  ForEachDocument(config, tokenizer,
                  [&](const auto& ids, int64_t text_bytes, int64_t target_bytes) { meter.Add(ids, text_bytes, target_bytes); });
  return meter.Finish();
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

// Writes json=; says whether standard output is free.
bool WriteJson(const RunConfig& config, const Json& result) {
  const std::string& json = config.String("json");
  if (!json.empty()) WriteOutput(json, result.dump(1) + "\n");
  return json != "-" && json != "/dev/stdout";
}

int RunPerplexity(const RunConfig& config, const Checkpoint& checkpoint, const Tokenizer& tokenizer, Progress& progress) {
  ForwardModel model(checkpoint, ParseComputeDType(config, "dtype"), {}, config.String("hf_lora_adapter_path"));
  const Stopwatch clock;
  const PerplexityResult result = Measure(config, model, tokenizer, progress);
  progress.Finish();
  const double seconds = clock.Seconds();
  CheckNll(config.String("load_parameters_path"), result.NllPerToken());
  if (!WriteJson(config, ToJson(result, seconds))) return 0;
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
int RunDivergence(const RunConfig& config, Checkpoint checkpoint, const Tokenizer& tokenizer, Progress& progress) {
  const int64_t window = config.Int("max_target_length");
  const DType dtype = ParseComputeDType(config, "dtype");
  const ReadableCheckpoint readable(config, "against");
  const MappedModel reference(OpenCheckpoint(config, readable.dir()), dtype, window);
  CheckVocabulary(tokenizer, reference.config());
  const MappedModel model(std::move(checkpoint), dtype, window, {}, {}, config.String("hf_lora_adapter_path"));
  const Stopwatch clock;
  DivergenceMeter meter(reference, model, WindowsOf(config, progress));
  ForEachDocument(config, tokenizer, [&](const auto& ids, int64_t text_bytes, int64_t) { meter.Add(ids, text_bytes); });
  const DivergenceResult r = meter.Finish();
  progress.Finish();
  if (!WriteJson(config, ToJson(r, clock.Seconds()))) return 0;
  fmt::print("mean KL         {:.3e}\nworst KL        {:.3e}  document {}, behind its token {}\ntop-1 agreement {:.3f} %\n", r.MeanKl(),
             r.worst_kl, r.worst_document, r.worst_token, 100 * r.Agreement());
  const auto targets = static_cast<double>(r.targets);
  fmt::print("perplexity      {:.3f}, of {} {:.3f}\n{} tokens of {} documents\n", std::exp(r.nll / targets), config.String("against"),
             std::exp(r.reference_nll / targets), r.targets, r.documents);
  return 0;
}

int Run(const RunConfig& config) {
  const std::filesystem::path dir = config.String("load_parameters_path"), tokenizer_path = config.String("tokenizer_path");
  if (dir.empty()) Throw(ErrorCode::kUsage, "eval perplexity needs load_parameters_path= (a checkpoint's folder)");
  Checkpoint checkpoint = OpenCheckpoint(config, dir);
  CheckModelName(config, checkpoint.config(), (dir / "config.json").string());
  const Tokenizer tokenizer = Tokenizer::Load(tokenizer_path.empty() ? dir : tokenizer_path);
  CheckVocabulary(tokenizer, checkpoint.config());
  Progress progress("evaluating", "MB", TotalBytes(ReadStream(config)), 1e6);
  if (!config.String("against").empty()) return RunDivergence(config, std::move(checkpoint), tokenizer, progress);
  return RunPerplexity(config, checkpoint, tokenizer, progress);
}

}  // namespace

Command EvalPerplexityCommand() {
  return {.name = "eval perplexity",
          .summary = "negative log likelihood, perplexity and bits per byte of a checkpoint on text",
          .flags = {"load_parameters_path", "ignore_config_keys", "tokenizer_path", "input", "eval_dataset_path", "eval_data_columns",
                    "max_target_length", "stride", "add_bos", "add_eos", "dtype", "hf_lora_adapter_path", "against"},
          .run = Run};
}

}  // namespace fathom
