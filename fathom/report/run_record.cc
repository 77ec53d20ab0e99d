#include "fathom/report/run_record.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <ranges>

#include "fathom/base/error.h"
#include "fathom/base/file.h"

namespace fathom {
namespace {

// row(object) for every whole line; how many were none.
template <class F>
int64_t ForRows(const std::filesystem::path& path, const F& row) {
  int64_t unread = 0;
  const std::string text = ReadTextFile(path, std::numeric_limits<size_t>::max());
  for (const auto part : std::views::split(text, '\n')) {
    const std::string_view line(part.begin(), part.end());
    if (line.empty()) continue;
    const Json object = Json::parse(line, nullptr, false);
    const bool whole = object.is_object() && object.contains("step") && object["step"].is_number_integer();
    whole ? row(object) : static_cast<void>(++unread);
  }
  return unread;
}

// JSON has no NaN: metrics hold null instead, or the word.
double Number(const Json& value) { return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN(); }

void AddScalars(const Json& row, RunRecord& run) {
  const auto step = row["step"].get<int64_t>();
  run.last_step = std::max(run.last_step, step);
  for (const auto& [name, value] : row.items()) {
    if (name != "step") run.scalars[name].emplace_back(step, Number(value));
  }
}

// {"step": 3, "counts": {"1": [5, 0, 2], "2": [...]}}: chosen experts of each layer.
void AddExperts(const Json& row, std::map<int64_t, ExpertHistory>& layers) {
  if (!row.contains("counts") || !row["counts"].is_object()) return;
  for (const auto& [name, counts] : row["counts"].items()) {
    const int64_t layer = std::atoll(name.c_str());
    ExpertHistory& history = layers.try_emplace(layer, ExpertHistory{layer, {}, {}}).first->second;
    std::vector<double> column;
    for (const Json& n : counts) column.push_back(Number(n));
    if (!history.counts.empty() && history.counts[0].size() != column.size()) continue;
    history.steps.push_back(row["step"].get<int64_t>());
    history.counts.push_back(std::move(column));
  }
}

std::string Word(const Json& row, const char* name) { return row.contains(name) && row[name].is_string() ? row[name] : ""; }

}  // namespace

const Series& RunRecord::Of(const std::string& scalar) const {
  static const Series none;
  const auto found = scalars.find(scalar);
  return found == scalars.end() ? none : found->second;
}

RunRecord ReadRun(const std::filesystem::path& folder) {
  const std::filesystem::path metrics = folder / "metrics";
  if (!std::filesystem::is_regular_file(metrics / "metrics.jsonl")) {
    Throw(ErrorCode::kInput, "{}: no run: it has no metrics/metrics.jsonl; give <base_output_directory>/<run_name>", folder.string());
  }
  RunRecord run;
  run.name = std::filesystem::weakly_canonical(folder).filename().string();
  run.unread_lines = ForRows(metrics / "metrics.jsonl", [&](const Json& row) { AddScalars(row, run); });
  if (run.last_step < 0) Throw(ErrorCode::kInput, "{}: no step was written", (metrics / "metrics.jsonl").string());
  if (std::filesystem::is_regular_file(metrics / "run.json")) run.about = ReadJsonFile(metrics / "run.json");
  if (std::filesystem::is_regular_file(metrics / "experts.jsonl")) {
    std::map<int64_t, ExpertHistory> layers;
    ForRows(metrics / "experts.jsonl", [&](const Json& row) { AddExperts(row, layers); });
    for (auto& [layer, history] : layers) run.experts.push_back(std::move(history));
  }
  if (std::filesystem::is_regular_file(metrics / "samples.jsonl")) {
    ForRows(metrics / "samples.jsonl", [&](const Json& row) {
      run.samples.push_back({row["step"].get<int64_t>(), Word(row, "prompt"), Word(row, "text")});
    });
  }
  return run;
}

}  // namespace fathom
