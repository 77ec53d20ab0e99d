#include "apps/decode.h"

#include <fmt/format.h>

#include <sstream>

#include "apps/chat.h"
#include "apps/command.h"
#include "apps/prompt_ids.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/clock.h"
#include "fathom/base/file.h"
#include "fathom/base/log.h"
#include "fathom/base/progress.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/config/profiler.h"
#include "fathom/data/file_format.h"
#include "fathom/infer/generate.h"
#include "fathom/machine/limits.h"
#include "fathom/model/layer_flags.h"

namespace fathom {
namespace {

struct Prompt {
  std::string text;
  std::vector<int32_t> ids;
};

// Standard input is the first rank's.
std::string ReadContent(const std::string& file, const Mesh& mesh) {
  if (file != "-" && file != "/dev/stdin") return ReadTextFile(file);
  return AllGatherText(mesh.world(), mesh.is_first() ? ReadStandardInput() : "")[0];
}

// A prompt per line; lines may end in CR LF, those without text are skipped.
std::vector<std::string> ReadLines(const std::string& file, const Mesh& mesh) {
  const std::string content = ReadContent(file, mesh);
  CheckIsText(content, file);
  std::istringstream text(content);
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.find_first_not_of(" \t") != line.npos) lines.push_back(line);
  }
  return lines;
}

// The folder that says how conversations are rendered.
std::filesystem::path TokenizerDir(const RunConfig& config) {
  const std::string& tokenizer_path = config.String("tokenizer_path");
  return tokenizer_path.empty() ? config.String("load_parameters_path") : tokenizer_path;
}

std::vector<Prompt> ReadPrompts(const RunConfig& config, const Tokenizer* tokenizer, const Mesh& mesh) {
  if (const std::string& file = config.String("messages_file"); !file.empty())
    return {{"", ChatPrompt(ReadChatForm(config, TokenizerDir(config)), *tokenizer, ReadMessages(file))}};
  if (!config.String("prompt_ids").empty()) return {{"", ParsePromptIds(config.String("prompt_ids"))}};
  const std::string& file = config.String("prompt_file");
  std::vector<Prompt> prompts;
  for (std::string& text : file.empty() ? std::vector{config.String("prompt")} : ReadLines(file, mesh)) {
    if (text.empty()) Throw(ErrorCode::kUsage, "the prompt is empty: give prompt=, prompt_file= or prompt_ids=");
    const bool bos = config.Bool("add_bos") && tokenizer->bos_id().has_value();
    prompts.push_back({text, tokenizer->Encode(text, {.add_bos = bos})});
  }
  if (prompts.empty()) Throw(ErrorCode::kUsage, "prompt_file={}: no prompt in it", file);
  return prompts;
}

SamplingOptions ReadSampling(const RunConfig& config) {
  SamplingOptions s;
  s.rule.strategy = ParseSamplingStrategy(config.String("decode_sampling_strategy"));
  s.rule.temperature = config.Float("decode_sampling_temperature");
  s.rule.top_k = config.Int("decode_sampling_top_k");
  s.rule.top_p = config.Float("decode_sampling_nucleus_p");
  s.seed = static_cast<uint64_t>(config.Int("seed"));
  CheckSampling(s.rule);
  return s;
}

// max_new_tokens, or what max_target_length leaves behind the prompt.
int64_t NewTokens(const RunConfig& config, const Prompt& prompt) {
  const int64_t prefill = config.Int("max_prefill_predict_length");
  if (config.Given("max_prefill_predict_length") && prefill > 0 && static_cast<int64_t>(prompt.ids.size()) > prefill) {
    Throw(ErrorCode::kUsage, "a prompt of {} tokens is longer than max_prefill_predict_length={}", prompt.ids.size(), prefill);
  }
  if (config.Int("max_new_tokens") >= 0) return config.Int("max_new_tokens");
  const int64_t room = config.Int("max_target_length") - static_cast<int64_t>(prompt.ids.size());
  if (room < 1)
    Throw(ErrorCode::kUsage, "a prompt of {} tokens leaves no room in max_target_length={}", prompt.ids.size(),
          config.Int("max_target_length"));
  return room;
}

// Acceptance and what drafting gained.
Json SpeculationJson(const GenerateResult& r) {
  return {{"drafted", r.drafted},
          {"accepted", r.accepted},
          {"acceptance", static_cast<double>(r.accepted) / static_cast<double>(r.drafted)},
          {"drafting_tokens_per_s", r.drafting_tokens_per_second},
          {"plain_tokens_per_s", r.plain_tokens_per_second}};
}

void LogSpeculation(const GenerateResult& r) {
  if (r.drafted == 0) return;
  const double plain = r.plain_tokens_per_second, drafting = r.drafting_tokens_per_second;
  spdlog::info("speculative=mtp: {} of {} drafts accepted ({:.0f} %){}", r.accepted, r.drafted,
               100 * static_cast<double>(r.accepted) / static_cast<double>(r.drafted),
               plain > 0 && drafting > 0
                   ? fmt::format("; {:.1f} tokens/s with drafts, {:.1f} without: {:.2f} times as fast", drafting, plain, drafting / plain)
                   : "");
}

DraftOptions ReadDrafts(const RunConfig& config) {
  return {.enabled = config.String("speculative") == "mtp",
          .input = ParseMtpInput(config.String("mtp_input")),
          .own_head = config.Bool("mtp_own_head")};
}

// How the model's makers sample, where the user has not said anything.
void NameSuggestedSampling(const RunConfig& config, const GenerationConfig& generation) {
  const std::string flags = generation.SamplingFlags();
  if (!flags.empty() && !config.Given("decode_sampling_strategy"))
    spdlog::info("decoding is greedy; the model's generation_config.json suggests {}", flags);
}

Json ResultJson(const GenerateResult& r, const Engine& engine, double load_seconds) {
  Json json = {
      {"prompt_ids", r.prompt_ids},
      {"ids", r.ids},
      {"text", r.text},
      {"finish_reason", r.finish_reason},
      {"timings",
       {{"load_s", load_seconds},
        {"prefill_tokens_per_s", r.PrefillTokensPerSecond()},
        {"decode_tokens_per_s", r.DecodeTokensPerSecond()}}},
      {"memory",
       {{"weights_bytes", engine.model().WeightBytes()}, {"cache_bytes", engine.CacheBytes()}, {"peak_rss_bytes", PeakResidentBytes()}}}};
  if (r.drafted > 0) json["speculative"] = SpeculationJson(r);
  return json;
}

void LogFigures(const GenerateResult& r, const Engine& engine) {
  spdlog::info("prompt {} tokens, {:.1f} tokens/s; answer {} tokens, {:.1f} tokens/s; weights {}, cache {}, peak memory {}",
               r.prompt_ids.size(), r.PrefillTokensPerSecond(), r.ids.size(), r.DecodeTokensPerSecond(),
               FormatBytes(static_cast<double>(engine.model().WeightBytes())), FormatBytes(static_cast<double>(engine.CacheBytes())),
               FormatBytes(static_cast<double>(PeakResidentBytes())));
}

GenerateOptions ReadOptions(const RunConfig& config) {
  GenerateOptions options;
  options.ignore_eos = config.Bool("ignore_eos");
  options.stop = config.Strings("stop");
  options.sampling = ReadSampling(config);
  if (config.String("speculative") == "mtp") options.draft_tokens = config.Int("draft_tokens");
  return options;
}

// Prompts and answers on standard output in the file's order: the first that has not ended is streamed, what others have said waits.
class Transcript {
 public:
  explicit Transcript(std::span<const Prompt> prompts, bool has_text) : prompts_(prompts), has_text_(has_text), waiting_(prompts.size()) {
    Begin();
  }
  void Text(size_t index, std::string_view piece) {
    if (index == current_) {
      Print(piece);
    } else {
      waiting_[index].text += piece;
    }
  }
  void Done(size_t index, const GenerateResult& r) {
    if (!has_text_) Text(index, fmt::format("{}", fmt::join(r.ids, ",")));
    Text(index, "\n");
    waiting_[index].done = true;
    for (; current_ < waiting_.size() && waiting_[current_].done; Begin()) ++current_;
  }

 private:
  struct Waiting {
    std::string text;
    bool done = false;
  };
  void Begin() {
    if (current_ < prompts_.size()) Print(prompts_[current_].text + std::exchange(waiting_[current_].text, {}));
  }
  static void Print(std::string_view text) {
    fmt::print("{}", text);
    std::fflush(stdout);  // before the figures on stderr
  }
  std::span<const Prompt> prompts_;
  bool has_text_;
  size_t current_ = 0;
  std::vector<Waiting> waiting_;
};

void CheckWanted(const RunConfig& config, const GenerateResult& r) {
  const std::string& wanted = config.String("autoregressive_decode_assert");
  if (!wanted.empty() && !r.text.starts_with(wanted))
    Throw(ErrorCode::kFailed, "the text does not start with autoregressive_decode_assert=\"{}\"", wanted);
}

// profiler=trace: the pass over the prompt is number 0.
TraceWindowOptions TraceOf(const RunConfig& config, const LayerGroups& groups) {
  if (!WantsTrace(config)) return {};
  const std::string& base = config.String("base_output_directory");
  return {.folder = std::filesystem::path(base.empty() ? "fathom_output" : base) / "trace",
          .what = "token",
          .first = config.Int("skip_first_n_steps_for_profiler"),
          .count = config.Int("profiler_steps"),
          .rank = std::max(groups.tensor.rank(), groups.expert.rank())};
}

// The answers' JSON, in the prompts' order.
std::vector<Json> RunPrompts(const RunConfig& config, Engine& engine, const Tokenizer* tokenizer, std::span<const Prompt> prompts,
                             int64_t batch, double load_seconds, bool speaks) {
  std::vector<Request> requests;
  for (const Prompt& p : prompts) requests.push_back({p.ids, NewTokens(config, p)});
  std::vector<Json> results(prompts.size());
  std::optional<Transcript> transcript;
  if (speaks) transcript.emplace(prompts, tokenizer != nullptr);
  const GenerateEvents events{[&](size_t i, std::string_view piece) {
                                if (transcript) transcript->Text(i, piece);
                              },
                              [&](size_t i, const GenerateResult& r) {
                                if (transcript) transcript->Done(i, r);
                                LogFigures(r, engine);
                                LogSpeculation(r);
                                results[i] = ResultJson(r, engine, load_seconds);
                                CheckWanted(config, r);
                              }};
  TraceWindow window(TraceOf(config, engine.model().groups()));
  engine.Trace(window);
  GenerateAll(engine, tokenizer, requests, ReadOptions(config), batch, events);
  window.End();
  return results;
}

// What each rank may read of the checkpoint, its memory, and what it has sent along each axis; null of one. Collective.
Json RanksJson(const Mesh& mesh, const MappedModel& model) {
  constexpr size_t kFigures = 2 + kAxes.size();
  const auto count = static_cast<size_t>(mesh.world().size());
  if (count == 1) return nullptr;
  std::vector<int64_t> all(count * kFigures);
  const auto of_rank = [&](size_t r) { return std::span(all).subspan(r * kFigures, kFigures); };
  const std::span<int64_t> mine = of_rank(static_cast<size_t>(mesh.world().rank()));
  mine[0] = model.WeightBytes();
  mine[1] = PeakResidentBytes();
  for (const Axis axis : kAxes) mine[2 + static_cast<size_t>(axis)] = mesh.comm(axis).traffic().bytes_sent;
  mesh.world().AllSum(std::span(all));
  Json ranks;
  for (size_t r = 0; r < count; ++r) {
    Json row = {{"rank", r}, {"bytes_read", of_rank(r)[0]}, {"peak_rss_bytes", of_rank(r)[1]}};
    for (const Axis axis : kAxes) {
      if (mesh.size(axis) > 1) row["bytes_sent"][AxisName(axis)] = of_rank(r)[2 + static_cast<size_t>(axis)];
    }
    ranks.push_back(std::move(row));
  }
  return ranks;
}

MappedModel MapModel(const RunConfig& config, int64_t capacity, const Mesh& mesh = {}) {
  const std::filesystem::path dir = config.String("load_parameters_path");
  Checkpoint checkpoint = OpenCheckpoint(config, dir);
  CheckDecodingMesh(config, mesh, checkpoint.config());
  return {std::move(checkpoint),
          ParseComputeDType(config, "dtype"),
          capacity,
          ReadDrafts(config),
          {.indexer_fp8 = config.Bool("indexer_fp8")},
          config.String("hf_lora_adapter_path"),
          mesh};
}

// chat=true.
int RunChat(const RunConfig& config, const Tokenizer& tokenizer) {
  for (const char* flag : {"prompt", "prompt_file", "prompt_ids", "messages_file", "json"}) {
    if (config.Given(flag)) Throw(ErrorCode::kUsage, "chat=true reads what you say from the terminal: leave {} out", flag);
  }
  const ChatForm form = ReadChatForm(config, TokenizerDir(config));
  const MappedModel model = MapModel(config, config.Int("max_target_length"));
  NameSuggestedSampling(config, model.generation());
  Engine engine(model, 1, config.Bool("batch_invariant"));
  GenerateOptions options = ReadOptions(config);
  options.max_new_tokens = config.Int("max_new_tokens");
  return Converse(engine, tokenizer, form, options);
}

// One of them is answered; the others would go unheard.
void CheckOnePrompt(const RunConfig& config) {
  std::string given;
  for (const char* flag : {"messages_file", "prompt_ids", "prompt_file", "prompt"}) {
    if (!config.Given(flag) || config.String(flag).empty()) continue;
    if (!given.empty()) Throw(ErrorCode::kUsage, "{}= and {}= both say what to answer: give one of them", given, flag);
    given = flag;
  }
}

int DecodeOnMesh(const RunConfig& config, const Mesh& mesh) {
  const std::filesystem::path dir = config.String("load_parameters_path");
  if (dir.empty()) Throw(ErrorCode::kUsage, "decode needs load_parameters_path= (a checkpoint's folder)");
  if (!config.Bool("chat")) CheckOnePrompt(config);
  const Stopwatch clock;
  std::optional<Tokenizer> tokenizer;
  if (config.String("prompt_ids").empty() || !config.String("tokenizer_path").empty())
    tokenizer.emplace(Tokenizer::Load(TokenizerDir(config)));
  const Tokenizer* reader = tokenizer ? &*tokenizer : nullptr;
  if (config.Bool("chat") && mesh.world().size() > 1) Throw(ErrorCode::kUsage, "chat=true: a terminal talks to one process, not to ranks");
  if (config.Bool("chat")) return RunChat(config, *tokenizer);
  const auto prompts = ReadPrompts(config, reader, mesh);
  int64_t capacity = 1;
  for (const Prompt& p : prompts) capacity = std::max(capacity, static_cast<int64_t>(p.ids.size()) + NewTokens(config, p));
  const MappedModel model = MapModel(config, capacity, mesh);
  NameSuggestedSampling(config, model.generation());
  const int64_t batch = std::min<int64_t>(config.Int("batch_size"), std::ssize(prompts));
  Engine engine(model, batch, config.Bool("batch_invariant"));
  std::vector<Json> results = RunPrompts(config, engine, reader, prompts, batch, clock.Seconds(), mesh.is_first());
  const Json ranks = RanksJson(mesh, model);
  for (Json& result : results) {
    if (!ranks.is_null()) result["ranks"] = ranks;
  }
  if (!config.String("json").empty() && mesh.is_first())
    WriteOutput(config.String("json"), JsonText((results.size() == 1 ? results[0] : Json(results))));
  return 0;
}

int Run(const RunConfig& config) { return DecodeOnMesh(config, {}); }

}  // namespace

void CheckDecodingMesh(const RunConfig& config, const Mesh& mesh, const ModelConfig& model) {
  if (mesh.world().size() == 1) return;
  for (const Axis axis : {Axis::kData, Axis::kFsdp, Axis::kContext, Axis::kStage}) {
    if (mesh.size(axis) == 1) continue;
    Throw(ErrorCode::kUsage, "{}={}: decode divides experts and heads: give 1, and ici_expert_parallelism or ici_tensor_parallelism {}",
          MeshFlag(config, axis), mesh.size(axis), mesh.world().size());
  }
  CheckMesh(config, mesh, model, 0);
}

Command DecodeCommand() {
  return {.name = "decode",
          .summary = "prompt to text, streamed",
          .flags = WithMeshFlags({"load_parameters_path",
                                  "ignore_config_keys",
                                  "tokenizer_path",
                                  "prompt",
                                  "prompt_file",
                                  "prompt_ids",
                                  "chat",
                                  "messages_file",
                                  "chat_template",
                                  "chat_template_path",
                                  "thinking",
                                  "add_bos",
                                  "max_new_tokens",
                                  "max_target_length",
                                  "max_prefill_predict_length",
                                  "ignore_eos",
                                  "stop",
                                  "dtype",
                                  "decode_sampling_strategy",
                                  "seed",
                                  "decode_sampling_temperature",
                                  "decode_sampling_top_k",
                                  "decode_sampling_nucleus_p",
                                  "autoregressive_decode_assert",
                                  "weight_dtype",
                                  "speculative",
                                  "draft_tokens",
                                  "batch_size",
                                  "batch_invariant",
                                  "mtp_input",
                                  "mtp_own_head",
                                  "indexer_fp8",
                                  "compat",
                                  "profiler",
                                  "skip_first_n_steps_for_profiler",
                                  "profiler_steps",
                                  "base_output_directory",
                                  "hf_lora_adapter_path"}),
          .run = Run,
          .run_rank = DecodeOnMesh};
}

}  // namespace fathom
