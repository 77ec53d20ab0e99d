// fathom eval perplexity: how well a checkpoint predicts text.
#include <fmt/format.h>

#include <cmath>

#include "apps/command.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/progress.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/data/document_stream.h"
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

PerplexityResult Measure(const RunConfig& config, ForwardModel& model, const Tokenizer& tokenizer) {
  const int64_t window = config.Int("max_target_length"), stride = config.Int("stride");
  const StreamConfig stream_config = ReadStream(config);
  Progress progress("evaluating", "MB", TotalBytes(stream_config), 1e6);
  PerplexityMeter meter(model, {window, stride == 0 ? window : stride, [&](double bytes) { progress.Update(bytes); }});
  DocumentStream stream(stream_config);
  for (std::string text; NextDocument(stream, text);) {
    const std::vector<int32_t> ids = Encode(config, tokenizer, text);
    const auto bytes = static_cast<int64_t>(text.size());
    meter.Add(ids, bytes, bytes - FirstTokenBytes(config, tokenizer, ids));
  }
  const PerplexityResult result = meter.Finish();
  progress.Finish();
  return result;
}

Json ToJson(const PerplexityResult& r, double seconds) {
  return {{"nll", r.NllPerToken()},   {"perplexity", r.Perplexity()}, {"bits_per_byte", r.BitsPerByte()}, {"tokens", r.targets},
          {"documents", r.documents}, {"text_bytes", r.text_bytes},   {"target_bytes", r.target_bytes},   {"seconds", seconds}};
}

int Run(const RunConfig& config) {
  const std::filesystem::path dir = config.String("load_parameters_path"), tokenizer_path = config.String("tokenizer_path");
  if (dir.empty()) Throw(ErrorCode::kUsage, "eval perplexity needs load_parameters_path= (a checkpoint's folder)");
  const Checkpoint checkpoint = OpenCheckpoint(config, dir);
  CheckModelName(config, checkpoint.config(), (dir / "config.json").string());
  ForwardModel model(checkpoint, ParseComputeDType(config, "dtype"), {}, config.String("hf_lora_adapter_path"));
  const Tokenizer tokenizer = Tokenizer::Load(tokenizer_path.empty() ? dir : tokenizer_path);
  if (tokenizer.vocab_size() > model.config().vocab_size) {
    Throw(ErrorCode::kUsage, "the tokenizer has {} tokens, the model's vocab_size is {}", tokenizer.vocab_size(),
          model.config().vocab_size);
  }
  const Stopwatch clock;
  const PerplexityResult result = Measure(config, model, tokenizer);
  const double seconds = clock.Seconds();
  if (!std::isfinite(result.NllPerToken()))
    Throw(ErrorCode::kFailed, "{}: the loss on this text is {}; fathom check files looks for broken weights", dir.string(),
          result.NllPerToken());
  const std::string& json = config.String("json");
  if (!json.empty()) WriteOutput(json, ToJson(result, seconds).dump(1) + "\n");
  if (json == "-" || json == "/dev/stdout") return 0;
  fmt::print("nll per token  {:.4f}\nperplexity     {:.3f}\nbits per byte  {:.4f}\n", result.NllPerToken(), result.Perplexity(),
             result.BitsPerByte());
  fmt::print("{} tokens of {} documents, {} of text, {:.0f} tokens/s\n", result.targets, result.documents,
             FormatBytes(static_cast<double>(result.text_bytes)), static_cast<double>(result.targets) / seconds);
  return 0;
}

}  // namespace

Command EvalPerplexityCommand() {
  return {.name = "eval perplexity",
          .summary = "negative log likelihood, perplexity and bits per byte of a checkpoint on text",
          .flags = {"load_parameters_path", "ignore_config_keys", "tokenizer_path", "input", "eval_dataset_path", "eval_data_columns",
                    "max_target_length", "stride", "add_bos", "add_eos", "dtype", "hf_lora_adapter_path"},
          .run = Run};
}

}  // namespace fathom
