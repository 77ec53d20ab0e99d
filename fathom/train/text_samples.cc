#include "fathom/train/text_samples.h"

#include <algorithm>
#include <fstream>

#include "fathom/base/log.h"
#include "fathom/base/trace.h"
#include "fathom/chat/chat_tokens.h"
#include "fathom/infer/decode_plan.h"
#include "fathom/train/metrics.h"

namespace fathom {
namespace {

constexpr int64_t kTemplateTokens = 64;  // around a user's message, at most
constexpr size_t kShownBytes = 160;

const Tokenizer& TokenizerOf(const DataSources& sources) {
  if (!sources.tokenizer) Throw(ErrorCode::kUsage, "sample_period: data without a tokenizer has no text to sample; leave it out");
  return *sources.tokenizer;
}

std::vector<int32_t> PromptIds(const SampleOptions& options, const DataSources& sources) {
  const Tokenizer& tokenizer = TokenizerOf(sources);
  if (sources.chat) {
    const OrderedJson messages = OrderedJson::array({{{"role", "user"}, {"content", options.prompt}}});
    return EncodeChat(tokenizer, RenderChat(*sources.chat, messages, {.add_generation_prompt = true})).ids;
  }
  std::vector<int32_t> ids = tokenizer.Encode(options.prompt, {.add_bos = options.add_bos && tokenizer.bos_id().has_value()});
  if (ids.empty()) Throw(ErrorCode::kUsage, "sample_prompt is empty and the tokenizer has no begin of sentence: give a text to go on from");
  return ids;
}

// A line of the log: what it is cut to is whole characters.
std::string Shown(std::string text) {
  const bool cut = text.size() > kShownBytes;
  size_t end = std::min(text.size(), kShownBytes);
  while (cut && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
  return Json(text + (cut ? "..." : "")).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

TextSamples::TextSamples(const TrainOptions& options, int64_t first_step, TrainSession& session, const ModelConfig& config,
                         const DataSources& sources)
    : options_(options.samples),
      path_(options.run_dir / "metrics" / "samples.jsonl"),
      tokenizer_(TokenizerOf(sources)),
      prompt_(PromptIds(options_, sources)),
      model_(config, session.params(), options.compute, std::ssize(prompt_) + options_.tokens, {.indexer_fp8 = options.layers.indexer_fp8}),
      engine_(model_, 1) {
  DropStepsFrom(path_, first_step);
}

void TextSamples::Write(int64_t step) {
  if (step == std::exchange(last_, step)) return;
  const TraceSlice slice("sample of text");
  GenerateResult result;
  try {
    result = Generate(engine_, &tokenizer_, prompt_, {.max_new_tokens = options_.tokens}, {});
  } catch (const Error& error) {
    return spdlog::warn("no sample after step {}: {}", step, error.what());
  }
  nlohmann::ordered_json line = {
      {"step", step}, {"prompt", options_.prompt}, {"text", result.text}, {"finish_reason", result.finish_reason}};
  std::ofstream file(path_, std::ios::app);
  file << line.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n" << std::flush;
  if (!file) Throw(ErrorCode::kResource, "{}: cannot be written", path_.string());
  spdlog::info("sample after step {}: {}", step, Shown(result.text));
}

int64_t PlanSamples(const TrainOptions& options, TrainSession& session) {
  const ModelConfig& config = session.decoder().config();
  const int64_t prompt = std::ssize(options.samples.prompt) + kTemplateTokens;
  return PlanSequence(config, session.params(), options.compute, std::min(config.max_position_embeddings, prompt + options.samples.tokens));
}

}  // namespace fathom
