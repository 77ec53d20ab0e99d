#include "apps/eval_choices.h"

#include <fmt/format.h>

#include "apps/command.h"
#include "apps/eval_mesh.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/progress.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/eval/choice_eval.h"
#include "fathom/eval/run_identity.h"
#include "fathom/model/layer_flags.h"
#include "fathom/parallel/host.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTemplate = "prompt_template";

ChoiceScoring ReadScoring(const RunConfig& config) {
  const std::string& scoring = config.String("scoring");
  const bool maxtext = config.String("compat") == "maxtext";
  if (scoring == "generated" || (scoring.empty() && maxtext)) return ChoiceScoring::kGenerated;
  if (maxtext)
    Throw(ErrorCode::kUsage, "compat=maxtext: MaxText scores the answer that the model writes; leave scoring={} or compat out", scoring);
  return scoring == "continuations" ? ChoiceScoring::kContinuations : ChoiceScoring::kLetters;
}

void RefuseStyle(const RunConfig& config, const char* scoring, const std::string& own) {
  if (config.Given("prompt_style") && config.String("prompt_style") != own)
    Throw(ErrorCode::kUsage, "prompt_style={}: scoring={} has one kind of prompt, {}'s", config.String("prompt_style"), scoring, own);
}

fs::path TokenizerPath(const RunConfig& config) {
  return config.String("tokenizer_path").empty() ? config.String("load_parameters_path") : config.String("tokenizer_path");
}

Json SettingsJson(const RunConfig& config, const ChoiceSettings& s, const ModelConfig& model) {
  return {{"scoring", static_cast<int>(s.scoring)},    {"add_bos", s.add_bos},
          {"longest_prompt", s.longest_prompt},        {"longest_sequence", s.longest_sequence},
          {"dtype", config.String("dtype")},           {"batch_invariant", config.Bool("batch_invariant")},
          {"indexer_fp8", config.Bool("indexer_fp8")}, {"ignore_config_keys", config.Strings("ignore_config_keys")},
          {"indexer_topk", model.index_topk}};
}

// A converted copy of the model is new in every run.
Json Identity(const RunConfig& config, const ChoiceSettings& settings, const ModelConfig& of) {
  std::vector<fs::path> paths = {config.String("load_parameters_path")};
  const bool converted = config.flags().at("load_parameters_path").source == "converted";
  Json model = FilesIdentity(paths, converted);
  paths = {TokenizerPath(config)};
  if (!config.String("hf_lora_adapter_path").empty()) paths.emplace_back(config.String("hf_lora_adapter_path"));
  return {{"model", model}, {"beside", FilesIdentity(paths, converted)}, {"settings", SettingsJson(config, settings, of)}};
}

bool AddBos(const RunConfig& config, const Tokenizer& tokenizer) {
  const bool wanted = config.Given("add_bos") ? config.Bool("add_bos") : tokenizer.add_bos_token();
  return wanted && tokenizer.bos_id().has_value();
}

void CheckFits(const Tokenizer& tokenizer, const ModelConfig& model, int64_t capacity) {
  if (tokenizer.vocab_size() > model.vocab_size)
    Throw(ErrorCode::kUsage, "the tokenizer has {} tokens, the model's vocab_size is {}", tokenizer.vocab_size(), model.vocab_size);
  if (capacity > model.max_position_embeddings) {
    Throw(ErrorCode::kUsage,
          "the longest question takes {} tokens, the model's max_position_embeddings is {}: fewer examples (num_shots=)?", capacity,
          model.max_position_embeddings);
  }
}

ChoiceRanks RanksOf(const Mesh& mesh) {
  const auto gather = [mesh](const std::string& mine) { return GatherFromAskers(mesh, mine); };
  return {AskerOf(mesh), AskersOf(mesh), gather, mesh.is_first(), HostPart(mesh.world())};
}

}  // namespace

std::vector<std::string> ChoiceFlags() {
  return WithMeshFlags({"load_parameters_path", "ignore_config_keys", "tokenizer_path", "limit", "prompt_style", "scoring", kTemplate,
                        "samples_output", "prompts_output", "add_bos", "dtype", "batch_invariant", "indexer_fp8", "hf_lora_adapter_path",
                        "max_prefill_predict_length", "max_target_length", "compat"});
}

ChoiceSettings ReadChoiceSettings(const RunConfig& config) {
  ChoiceSettings s;
  s.scoring = ReadScoring(config);
  s.style = ParsePromptStyle(config.String("prompt_style"));
  s.prompt_template = config.String(kTemplate).empty() ? kMaxTextTemplate : config.String(kTemplate);
  if (s.scoring != ChoiceScoring::kGenerated) {
    if (config.Given(kTemplate)) Throw(ErrorCode::kUsage, "prompt_template: of scoring=generated (compat=maxtext) alone");
    if (s.scoring == ChoiceScoring::kContinuations) RefuseStyle(config, "continuations", "lm_eval");
    return s;
  }
  RefuseStyle(config, "generated", "maxtext");
  if (config.Given("max_prefill_predict_length")) s.longest_prompt = config.Int("max_prefill_predict_length");
  s.longest_sequence = config.Int("max_target_length");
  return s;
}

int64_t ReadShots(const RunConfig& config, ChoiceScoring scoring, int64_t otherwise) {
  const int64_t given = config.Given("num_shots") ? config.Int("num_shots") : -1;
  if (scoring != ChoiceScoring::kGenerated) return given < 0 ? otherwise : given;
  if (given > 0) Throw(ErrorCode::kUsage, "num_shots={}: scoring=generated would take an example's answer for the model's; give 0", given);
  return 0;
}

std::vector<SubjectScore> EvaluateChoices(const RunConfig& config, const std::string& command, const std::vector<ChoiceSubject>& subjects,
                                          const ChoiceSettings& settings, const Mesh& mesh) {
  const fs::path dir = config.String("load_parameters_path");
  if (dir.empty()) Throw(ErrorCode::kUsage, "{} needs load_parameters_path= (a checkpoint's folder)", command);
  Checkpoint checkpoint = OpenCheckpoint(config, dir);
  CheckEvalMesh(config, mesh, checkpoint.config());
  const Tokenizer tokenizer = Tokenizer::Load(TokenizerPath(config));
  ChoiceRun run{settings, {}, config.String("samples_output"), config.String("prompts_output"), {}, RanksOf(mesh)};
  run.settings.add_bos = AddBos(config, tokenizer);
  run.identity = Identity(config, run.settings, checkpoint.config());
  ChoiceEvaluation evaluation(subjects, tokenizer, run);
  CheckFits(tokenizer, checkpoint.config(), evaluation.Capacity());
  const bool by_row = config.Bool("batch_invariant");
  if (evaluation.done() == evaluation.questions()) return evaluation.Run(nullptr, by_row);
  const MappedModel model(std::move(checkpoint), ParseComputeDType(config, "dtype"), evaluation.Capacity(), {},
                          {.indexer_fp8 = config.Bool("indexer_fp8")}, config.String("hf_lora_adapter_path"), mesh);
  Progress progress(command, "questions", static_cast<double>(evaluation.questions()), 1, static_cast<double>(evaluation.done()));
  run.progress = [&](int64_t done, double accuracy) {
    if (done < evaluation.questions()) progress.Update(static_cast<double>(done), fmt::format("{:.2f} % right", 100 * accuracy));
  };
  auto scores = evaluation.Run(&model, by_row);
  progress.Finish();
  return scores;
}

void ReportChoices(const RunConfig& config, const std::string& table, Json json, const Mesh& mesh) {
  if (!mesh.is_first()) return;
  const auto is_standard = [&](const char* flag) { return config.String(flag) == "-" || config.String(flag) == "/dev/stdout"; };
  if (!is_standard("json") && !is_standard("samples_output") && !is_standard("prompts_output")) fmt::print("{}", table);
  if (config.String("json").empty()) return;
  json["config"]["limit"] = config.Int("limit");
  for (const char* key : {"prompt_style", "scoring", "dtype", "load_parameters_path", "hf_lora_adapter_path", "compat"})
    json["config"][key] = config.String(key);
  WriteOutput(config.String("json"), JsonText(json));
}

}  // namespace fathom
