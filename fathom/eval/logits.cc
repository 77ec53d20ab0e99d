#include "fathom/eval/logits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <set>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"

namespace fathom {
namespace {

constexpr size_t kTop = 10;

double LogSumExp(std::span<const double> x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double v : x) sum += std::exp(v - top);
  return top + std::log(sum);
}

std::vector<double> ClippedSoftmax(std::span<const double> x, double clip) {
  const double norm = LogSumExp(x);
  std::vector<double> p(x.size());
  std::transform(x.begin(), x.end(), p.begin(), [&](double v) { return std::clamp(std::exp(v - norm), clip, 1.0); });
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

std::vector<int64_t> TopIds(std::span<const double> x) {
  std::vector<int64_t> ids(x.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto n = static_cast<std::ptrdiff_t>(std::min(kTop, x.size()));
  std::partial_sort(ids.begin(), ids.begin() + n, ids.end(), [&](int64_t a, int64_t b) {
    const double xa = x[static_cast<size_t>(a)], xb = x[static_cast<size_t>(b)];
    return xa != xb ? xa > xb : a < b;
  });
  ids.resize(static_cast<size_t>(n));
  return ids;
}

GoldenLogits ParseLine(const std::string& line, const std::string& where) {
  const Json j = ParseJson(line, where);
  GoldenLogits g;
  try {
    g.prompt = j.value("prompt", "");
    g.tokens = j.at("tokens").get<std::vector<int32_t>>();
    g.logits = j.at("logits").get<std::vector<std::vector<double>>>();
  } catch (const nlohmann::json::exception& e) {
    Throw(ErrorCode::kInput, "{}: golden logits need tokens (a list of ids) and logits (a list of rows): {}", where, e.what());
  }
  if (g.tokens.empty() || g.tokens.size() != g.logits.size()) {
    Throw(ErrorCode::kInput, "{}: {} tokens and {} rows of logits", where, g.tokens.size(), g.logits.size());
  }
  for (const auto& row : g.logits) {
    if (row.empty() || row.size() != g.logits[0].size()) Throw(ErrorCode::kInput, "{}: rows of logits differ in length", where);
  }
  return g;
}

void CompareRow(size_t position, std::span<const double> golden, std::span<const double> model, const LogitBars& bars,
                LogitReport& report) {
  for (size_t v = 0; v < golden.size(); ++v) {
    const double difference = std::fabs(model[v] - golden[v]);
    if (!(difference <= report.max_abs)) {
      report.max_abs = difference;
      report.max_abs_position = static_cast<int64_t>(position);
      report.max_abs_id = static_cast<int64_t>(v);
      report.max_abs_model = model[v];
      report.max_abs_golden = golden[v];
    }
    const double relative = difference / (golden[v] == 0 ? 1e-8 : std::fabs(golden[v]));
    if (!(relative <= report.max_rel)) report.max_rel = relative;
    if (bars.atol && !(difference <= *bars.atol + bars.rtol * std::fabs(golden[v]))) {
      report.allclose = false;
      if (!report.first_above_atol) report.first_above_atol = position;
    }
  }
  const double kl = KlDivergence(golden, model, bars.clip);
  if (report.kl.empty() || !(kl <= report.max_kl)) {
    report.max_kl = kl;
    report.max_kl_position = static_cast<int64_t>(position);
  }
  if (bars.max_kl_div && !(kl < *bars.max_kl_div) && !report.first_above_kl) report.first_above_kl = position;
  report.kl.push_back(kl);
}

}  // namespace

double KlDivergence(std::span<const double> truth, std::span<const double> model, double clip) {
  double kl = 0;
  if (clip > 0) {
    const auto p = ClippedSoftmax(truth, clip), q = ClippedSoftmax(model, clip);
    for (size_t v = 0; v < p.size(); ++v) kl += p[v] * (std::log(p[v]) - std::log(q[v]));
    return kl;
  }
  const double p_norm = LogSumExp(truth), q_norm = LogSumExp(model);
  for (size_t v = 0; v < truth.size(); ++v) {
    const double log_p = truth[v] - p_norm;
    kl += std::exp(log_p) * (log_p - (model[v] - q_norm));
  }
  return kl;
}

void ReadGoldenLogits(const std::filesystem::path& file, const std::function<void(GoldenLogits)>& f) {
  std::ifstream in(file);
  if (!in) Throw(ErrorCode::kInput, "{}: cannot open", file.string());
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    if (++number == 1) RefuseLfsPointer(file, line);
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    f(ParseLine(line, fmt::format("{}:{}", file.string(), number)));
  }
  if (number == 0) Throw(ErrorCode::kInput, "{}: empty", file.string());
}

bool LogitReport::Passes(const LogitBars& bars) const {
  if (bars.atol && !allclose) return false;
  return !bars.max_kl_div || max_kl < *bars.max_kl_div;
}

LogitReport CompareLogits(const std::vector<std::vector<double>>& golden, const std::vector<std::vector<double>>& model,
                          const LogitBars& bars) {
  LogitReport report;
  size_t rows = std::min(golden.size(), model.size());
  if (bars.token_size >= 0) rows = std::min(rows, static_cast<size_t>(bars.token_size));
  for (size_t i = bars.skip_first_token ? 1 : 0; i < rows; ++i) {
    const size_t vocab = std::min(golden[i].size(), model[i].size());
    CompareRow(i, std::span(golden[i]).first(vocab), std::span(model[i]).first(vocab), bars, report);
  }
  return report;
}

std::string TopTenTable(std::span<const double> golden, std::span<const double> model) {
  const auto a = TopIds(golden), b = TopIds(model);
  std::string table = fmt::format("{:>4} {:>10} {:>12} {:>10} {:>12}\n", "rank", "golden id", "logit", "our id", "logit");
  size_t same_rank = 0;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    table += fmt::format("{:>4} {:>10} {:>12.5f} {:>10} {:>12.5f}\n", i + 1, a[i], golden[static_cast<size_t>(a[i])], b[i],
                         model[static_cast<size_t>(b[i])]);
    same_rank += a[i] == b[i];
  }
  std::set<int64_t> both(a.begin(), a.end()), all = both;
  const auto shared = static_cast<size_t>(std::count_if(b.begin(), b.end(), [&](int64_t id) { return both.contains(id); }));
  all.insert(b.begin(), b.end());
  return table + fmt::format("top {}: {} ids shared, Jaccard {:.3f}, {} at the same rank\n", a.size(), shared,
                             static_cast<double>(shared) / static_cast<double>(all.size()), same_rank);
}

}  // namespace fathom
