#include <fmt/format.h>

#include "apps/command.h"
#include "apps/diagnosis.h"
#include "apps/late_progress.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/file.h"
#include "fathom/eval/golden_diagnosis.h"
#include "fathom/model/layer_flags.h"

namespace fathom {
namespace {

void Dump(const GoldenArrays& arrays, const std::filesystem::path& dir) {
  std::error_code failed;
  std::filesystem::create_directories(dir, failed);
  if (failed) Throw(ErrorCode::kResource, "{}: cannot create: {}", dir.string(), failed.message());
  std::vector<TensorInfo> infos;
  for (const auto& [name, t] : arrays) infos.push_back({name, t.dtype(), t.shape()});
  SafetensorsWriter writer(dir / "fathom.safetensors", infos);
  size_t i = 0;
  for (const auto& [name, t] : arrays) writer.Write(i++, t.view());
  writer.Close();
}

void PrintRows(const std::vector<GoldenRow>& rows) {
  fmt::print("{:<64} {:<12} {:>10} {:>10} {:>10} {:>13}\n", "array", "measure", "max abs", "error", "bound", "transformers");
  for (const GoldenRow& r : rows) {
    fmt::print("{:<64} {:<12} {:>10.2e} {:>10.2e} {:>10.2e} {:>13} {}\n", r.name, r.measure, r.max_abs, r.error, r.bound,
               r.reference > 0 ? fmt::format("{:.2e}", r.reference) : "", r.ok ? "ok" : "MISSED");
  }
}

// Where the first hidden state parts and which known fault explains the logits. Bounds and KL are those of float32.
Json Diagnose(const GoldenCase& golden, const GoldenArrays& got, const std::vector<GoldenRow>& rows, bool explain) {
  Json json = {{"first", nullptr}, {"tried", Json::array()}, {"cause", nullptr}};
  if (const auto first = FirstHiddenState(golden, got)) {
    fmt::print("the first hidden state that parts: {}, token {} of sequence {} (counted from 0)\n",
               first->layer < 0 ? "the embedding" : fmt::format("after layer {}", first->layer), first->token, first->row);
    json["first"] = {{"layer", first->layer}, {"row", first->row}, {"token", first->token}};
  }
  std::fflush(stdout);  // before a search that may take long
  if (!explain) return json;
  const auto sequences = golden.Has("short_ids") ? golden.ShapeOf("short_ids")[0] : 0;
  LateProgress progress("trying known faults", "runs", static_cast<double>((sequences + 1) * std::ssize(KnownFaults())));
  double runs = 0;
  const GoldenDiagnosis diagnosis = DiagnoseGolden(golden, rows, [&] { progress.Update(++runs); });
  progress.Finish();
  if (diagnosis.tried.empty()) return json;
  PrintTried(diagnosis.tried, diagnosis.cause);
  json.update(TriedJson(diagnosis.tried, diagnosis.cause));
  return json;
}

Json ToJson(const std::vector<GoldenRow>& rows) {
  Json out = Json::array();
  for (const GoldenRow& r : rows) {
    out.push_back({{"name", r.name},
                   {"measure", r.measure},
                   {"max_abs", r.max_abs},
                   {"error", r.error},
                   {"bound", r.bound},
                   {"transformers", r.reference},
                   {"ok", r.ok}});
  }
  return out;
}

int Run(const RunConfig& config) {
  if (config.String("golden").empty()) Throw(ErrorCode::kUsage, "check golden needs golden= (a folder with golden.safetensors)");
  const GoldenCase golden(OpenCheckpoint(config, config.String("golden")));
  const GoldenArrays got = ComputeGolden(golden, ParseComputeDType(config, "dtype"));
  if (!config.String("dump").empty()) Dump(got, config.String("dump"));
  const auto rows = CompareGolden(golden, got);
  PrintRows(rows);
  const auto missed = std::count_if(rows.begin(), rows.end(), [](const GoldenRow& r) { return !r.ok; });
  fmt::print("{} of {} comparisons within their bounds\n", static_cast<int64_t>(rows.size()) - missed, rows.size());
  if (missed > 0 && config.String("dtype") == "bfloat16")
    fmt::print("the bounds are for float32: give dtype=float32 to check against them\n");
  Json diagnosis;
  if (missed > 0 && config.String("dtype") == "float32") diagnosis = Diagnose(golden, got, rows, config.Bool("explain"));
  if (!config.String("json").empty())
    WriteOutput(config.String("json"), JsonText(Json{{"arrays", ToJson(rows)}, {"diagnosis", diagnosis}}));
  return missed == 0 ? 0 : static_cast<int>(ErrorCode::kFailed);
}

}  // namespace

Command CheckGoldenCommand() {
  return {.name = "check golden",
          .summary = "every array of a golden folder that the engine can compute, compared with the truth",
          .flags = {"golden", "ignore_config_keys", "dump", "dtype", "explain"},
          .run = Run};
}

}  // namespace fathom
