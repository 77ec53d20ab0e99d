// Comparing logits with golden ones: MaxText's forward_pass_logit_checker, its file format, its figures.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace fathom {

// sum_v p (log p - log q), p = softmax(truth), q = softmax(model), in double. With clip > 0 both are clamped to [clip, 1] and normalised
// again.
double KlDivergence(std::span<const double> truth, std::span<const double> model, double clip = 0);

// One line of a golden JSONL file.
struct GoldenLogits {
  std::string prompt;
  std::vector<int32_t> tokens;
  std::vector<std::vector<double>> logits;  // [n][V]
};
// Calls f for every line. Throws Error(kInput) naming file and line: not JSON, no tokens or logits, lengths that differ.
void ReadGoldenLogits(const std::filesystem::path& file, const std::function<void(GoldenLogits)>& f);

struct LogitBars {
  std::optional<double> atol, max_kl_div;  // at least one is set
  double rtol = 1e-5;
  double clip = 0;
  bool skip_first_token = false;
  int64_t token_size = -1;  // only the first positions; -1: all
};

struct LogitReport {
  double max_abs = 0, max_rel = 0, max_kl = 0;
  int64_t max_abs_position = 0, max_abs_id = 0, max_kl_position = 0;
  double max_abs_model = 0, max_abs_golden = 0;
  bool allclose = true;                                     // every |m - g| <= atol + rtol |g|; only meaningful with atol
  std::vector<double> kl;                                   // per position that was compared
  std::optional<int64_t> first_above_kl, first_above_atol;  // the first position that misses a bar
  bool Passes(const LogitBars& bars) const;
  // The first position above max_kl_div, or, where none is, beyond atol.
  std::optional<int64_t> FirstMissed() const { return first_above_kl ? first_above_kl : first_above_atol; }
};

// model [n][V']: only the first min(V, V') logits are compared.
LogitReport CompareLogits(const std::vector<std::vector<double>>& golden, const std::vector<std::vector<double>>& model,
                          const LogitBars& bars);

// The ten largest logits of both, how many ids they share, their Jaccard index and the share of equal ranks, as text.
std::string TopTenTable(std::span<const double> golden, std::span<const double> model);

}  // namespace fathom
