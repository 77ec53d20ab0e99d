#include <fmt/format.h>

#include "apps/command.h"
#include "apps/diagnosis.h"
#include "apps/late_progress.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/file.h"
#include "fathom/base/log.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/eval/forward.h"
#include "fathom/eval/logits.h"
#include "fathom/model/layer_flags.h"

namespace fathom {
namespace {

std::optional<double> OptionalFloat(const RunConfig& config, const char* flag) {
  if (std::holds_alternative<std::monostate>(config.flags().find(flag)->second.value)) return std::nullopt;
  return config.Float(flag);
}

LogitBars ReadBars(const RunConfig& config) {
  LogitBars bars;
  bars.atol = OptionalFloat(config, "atol");
  bars.max_kl_div = OptionalFloat(config, "max_kl_div");
  bars.rtol = config.Float("rtol");
  bars.clip = OptionalFloat(config, "clip_logits_epsilon").value_or(0);
  bars.skip_first_token = config.Bool("skip_first_token");
  bars.token_size = static_cast<int64_t>(OptionalFloat(config, "token_size").value_or(-1));
  if (!bars.atol && !bars.max_kl_div) Throw(ErrorCode::kUsage, "check logits needs a bar: give max_kl_div= or atol=, or both");
  return bars;
}

void Print(const GoldenLogits& golden, const std::vector<std::vector<double>>& model, const LogitReport& r, bool passes) {
  fmt::print("prompt: {}\ntokens: {}\n", golden.prompt, fmt::join(golden.tokens, " "));
  fmt::print("max absolute difference {:.3e} at position {}, id {}: ours {:.6f}, golden {:.6f}\n", r.max_abs, r.max_abs_position,
             r.max_abs_id, r.max_abs_model, r.max_abs_golden);
  fmt::print("max relative difference {:.3e}\n{}", r.max_rel, TopTenTable(golden.logits.back(), model.back()));
  fmt::print("KL divergence per token: {}\n", [&] {
    std::string text;
    for (const double kl : r.kl) text += fmt::format("{:.3e} ", kl);
    return text;
  }());
  fmt::print("max KL divergence {:.3e} at position {}, token {}\n{}\n\n", r.max_kl, r.max_kl_position,
             golden.tokens[static_cast<size_t>(r.max_kl_position)], passes ? "within the bars" : "MISSED");
}

// Everything that was compared, and where it first misses.
struct Results {
  Json prompts = Json::array();
  int64_t missed = 0;
  double max_kl = 0;
  Json first;  // prompt and token; null while all is within the bars
  std::string output;
};

void Compare(const RunConfig& config, ForwardModel& model, const LogitBars& bars, Results& results) {
  ReadGoldenLogits(config.String("golden_logits_path"), [&](const GoldenLogits& golden) {
    const auto logits = model.LogitRows(golden.tokens);
    const LogitReport report = CompareLogits(golden.logits, logits, bars);
    if (report.kl.empty()) {
      Throw(ErrorCode::kUsage, "{}: of the {} tokens of prompt {}, skip_first_token and token_size leave none to compare",
            config.String("golden_logits_path"), golden.tokens.size(), results.prompts.size());
    }
    results.max_kl = std::max(results.max_kl, report.max_kl);
    const bool passes = report.Passes(bars);
    Print(golden, logits, report, passes);
    if (!passes && results.missed++ == 0) results.first = {{"prompt", results.prompts.size()}, {"token", report.FirstMissed().value_or(0)}};
    results.prompts.push_back(
        {{"prompt", golden.prompt}, {"max_abs", report.max_abs}, {"max_rel", report.max_rel}, {"max_kl", report.max_kl}, {"ok", passes}});
    if (!config.String("output_logits_path").empty()) {
      results.output += JsonText({{"prompt", golden.prompt}, {"tokens", golden.tokens}, {"logits", logits}}, -1);
    }
  });
  if (results.prompts.empty()) Throw(ErrorCode::kInput, "{}: no prompt in it", config.String("golden_logits_path"));
}

void PrintSummary(const Results& results) {
  const auto prompts = static_cast<int64_t>(results.prompts.size());
  if (!results.first.is_null()) {
    fmt::print("the first position that misses: prompt {}, token {} (counted from 0)\n", results.first["prompt"].get<int64_t>(),
               results.first["token"].get<int64_t>());
  }
  fmt::print("{} of {} prompts within the bars\n", prompts - results.missed, prompts);
  std::fflush(stdout);  // before a search that may take long
}

// The file is read a second time, so that no more than one prompt's logits are in memory.
Json Diagnose(const RunConfig& config, const ForwardModel& model, const LogitBars& bars, const Results& results) {
  Json diagnosis = {{"first", results.first}, {"tried", Json::array()}, {"cause", nullptr}};
  const std::filesystem::path file = config.String("golden_logits_path");
  if (!config.Bool("explain")) return diagnosis;
  if (!std::filesystem::is_regular_file(file)) {
    spdlog::warn("{}: no file that can be read twice: known faults are not tried", file.string());
    return diagnosis;
  }
  FaultSearch search(model, ReadLayerOptions(config), bars);
  LateProgress progress("trying known faults", "runs", static_cast<double>(results.prompts.size()) * static_cast<double>(search.Runs()));
  double runs = 0;
  ReadGoldenLogits(file, [&](const GoldenLogits& golden) { search.Add(golden, [&] { progress.Update(++runs); }); });
  progress.Finish();
  const std::optional<TriedFault> cause = search.Cause(results.max_kl);
  PrintTried(search.Tried(), cause);
  diagnosis.update(TriedJson(search.Tried(), cause));
  return diagnosis;
}

int Run(const RunConfig& config) {
  const std::filesystem::path dir = config.String("load_parameters_path");
  if (dir.empty()) Throw(ErrorCode::kUsage, "check logits needs load_parameters_path= (a checkpoint's folder)");
  if (config.String("golden_logits_path").empty()) Throw(ErrorCode::kUsage, "check logits needs golden_logits_path= (a JSONL file)");
  const LogitBars bars = ReadBars(config);
  const Checkpoint checkpoint = OpenCheckpoint(config, dir);
  ForwardModel model(checkpoint, ParseComputeDType(config, "dtype"), ReadLayerOptions(config), config.String("hf_lora_adapter_path"));
  Results results;
  Compare(config, model, bars, results);
  if (!results.output.empty()) WriteOutput(config.String("output_logits_path"), results.output);
  PrintSummary(results);
  const Json diagnosis = results.missed > 0 ? Diagnose(config, model, bars, results) : Json(nullptr);
  if (!config.String("json").empty())
    WriteOutput(config.String("json"), JsonText(Json{{"prompts", results.prompts}, {"diagnosis", diagnosis}}));
  return results.missed == 0 ? 0 : static_cast<int>(ErrorCode::kFailed);
}

}  // namespace

Command CheckLogitsCommand() {
  return {.name = "check logits",
          .summary = "logits against golden ones in a JSONL file, as MaxText's forward_pass_logit_checker",
          .flags = {"load_parameters_path", "ignore_config_keys", "golden_logits_path", "max_kl_div", "atol", "rtol", "token_size",
                    "skip_first_token", "clip_logits_epsilon", "output_logits_path", "dtype", "hf_lora_adapter_path", "sparse_matmul",
                    "capacity_factor", "indexer_fp8", "explain"},
          .run = Run};
}

}  // namespace fathom
