#include "fathom/train/run_journal.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include "fathom/base/file.h"
#include "fathom/base/log.h"
#include "fathom/base/progress.h"
#include "fathom/base/threads.h"
#include "fathom/config/flag_text.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/machine/limits.h"
#include "fathom/report/page.h"
#include "fathom/report/run_record.h"
#include "fathom/spec/model_spec.h"

namespace fathom {
namespace {

constexpr int64_t kNotedSteps = 120;  // columns of a heat map that a screen can show

std::string Now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  return std::string(text, std::strftime(text, sizeof(text), "%F %T UTC", &utc));
}

// What differs from base.yml.
Json ChangedFlags(const RunConfig& config) {
  Json flags = Json::object();
  for (const auto& [name, flag] : config.flags()) {
    if (FindFlag(name, "flags").role == FlagRole::kOwn && flag.source != "base.yml")
      flags[name] = {{"value", FormatFlag(flag.value)}, {"source", flag.source}};
  }
  return flags;
}

}  // namespace

RunJournal::RunJournal(const RunConfig& config, const TrainOptions& options, int64_t first_step)
    : run_dir_(options.run_dir), period_(std::max<int64_t>(1, options.steps / kNotedSteps)), first_step_(first_step) {
  about_ = {{"started", Now()}, {"steps", options.steps}, {"flags", ChangedFlags(config)}, {"ended", nullptr}};
  if (first_step > 0) about_["started"] = fmt::format("{}, resumed at step {}", Now(), first_step);
}

RunJournal::~RunJournal() {
  if (experts_ != nullptr) std::fclose(experts_);
}

void RunJournal::SetModel(const ModelConfig& model, const std::vector<MemoryRow>& memory) {
  const ParameterCounts counts = CountParameters(model);
  about_["model"] = fmt::format("{} layers, {:.4g} M parameters, {:.4g} M active", model.num_hidden_layers,
                                static_cast<double>(counts.total) * 1e-6, static_cast<double>(counts.active) * 1e-6);
  Json rows = Json::array();
  for (const MemoryRow& row : memory) rows.push_back({{"what", row.what}, {"size", FormatBytes(static_cast<double>(row.bytes))}});
  rows.push_back({{"what", "in all"}, {"size", FormatBytes(static_cast<double>(TotalBytes(memory)))}});
  about_["memory"] = std::move(rows);
}

void RunJournal::SetMachine(double peak_gflops) {
  about_["machine"] = fmt::format("{}, {} thread{}, {} of memory, products at {:.0f} GFLOP/s", CpuName(), NumThreads(),
                                  NumThreads() == 1 ? "" : "s", FormatBytes(static_cast<double>(MemoryBytes())), peak_gflops);
  WriteAbout();
}

void RunJournal::NoteExperts(int64_t step, TrainSession& session) {
  const LayerTotals& totals = session.totals();
  const ModelConfig& config = session.decoder().config();
  const auto experts = static_cast<size_t>(config.n_routed_experts);
  if (step % period_ != 0 || experts == 0) return;
  Json counts = Json::object();
  for (size_t i = 0; i < totals.dropped.size(); ++i) {
    if (!config.is_moe_layer(static_cast<int64_t>(i))) continue;
    const auto of_layer = totals.expert_counts.subspan(i * experts, experts);
    counts[std::to_string(i)] = std::vector<int64_t>(of_layer.begin(), of_layer.end());
  }
  if (counts.empty()) return;
  const std::filesystem::path path = run_dir_ / "metrics" / "experts.jsonl";
  if (experts_ == nullptr) {
    DropStepsFrom(path, first_step_);
    experts_ = std::fopen(path.c_str(), "ae");
  }
  // "step" stands first, as DropStepsFrom reads it.
  const std::string line = fmt::format("{{\"step\":{},\"counts\":{}}}\n", step, counts.dump());
  if (experts_ == nullptr || std::fwrite(line.data(), 1, line.size(), experts_) != line.size() || std::fflush(experts_) != 0)
    Throw(ErrorCode::kResource, "{}: cannot be written", path.string());
}

void RunJournal::End(int code, const std::string& why) {
  about_["ended"] = {{"code", code}, {"why", why}, {"time", Now()}};
  try {
    WriteAbout();
    const RunRecord run = ReadRun(run_dir_);
    WriteFileAtomically(run_dir_ / "report.html", ReportPage({&run, 1}));
  } catch (const std::exception& error) {
    spdlog::warn("no report of this run: {}", error.what());
  }
}

void RunJournal::WriteAbout() const { WriteFileAtomically(run_dir_ / "metrics" / "run.json", JsonText(about_)); }

}  // namespace fathom
