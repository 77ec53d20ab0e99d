#include "fathom/eval/golden_diagnosis.h"

#include <algorithm>
#include <cmath>

#include "fathom/eval/golden_arrays.h"

namespace fathom {
namespace {

// The folder's logits [B,T,V] of the sequences of ids [B,T+targets] as rows to compare with; none if they have another shape.
std::vector<GoldenLogits> Sequences(const GoldenCase& golden, const std::string& ids_name, const std::string& logits_name,
                                    int64_t targets) {
  if (!golden.Has(ids_name) || !golden.Has(golden.prefix + logits_name)) return {};
  const std::vector<int32_t> ids = golden.Ids(ids_name);
  const std::vector<double> logits = Doubles(golden.Expected(golden.prefix + logits_name));
  const int64_t rows = golden.ShapeOf(ids_name)[0], width = std::ssize(ids) / rows, length = width - targets;
  const int64_t vocab = golden.checkpoint.config().vocab_size;
  if (std::ssize(logits) != rows * length * vocab) return {};
  std::vector<GoldenLogits> sequences(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r) {
    GoldenLogits& s = sequences[static_cast<size_t>(r)];
    s.tokens.assign(ids.begin() + r * width, ids.begin() + r * width + length);
    for (int64_t t = 0; t < length; ++t) {
      const auto row = logits.begin() + (r * length + t) * vocab;
      s.logits.emplace_back(row, row + vocab);
    }
  }
  return sequences;
}

bool Misses(const GoldenCase& golden, const std::vector<GoldenRow>& rows, const std::string& name, const std::string& measure) {
  return std::ranges::any_of(rows, [&](const GoldenRow& r) { return r.name == golden.prefix + name && r.measure == measure && !r.ok; });
}

TriedFault TryMtpBeforeNorm(const GoldenCase& golden) {
  const std::vector<int32_t> ids = golden.Ids("mid_ids");
  const Batch mid = ShiftedBatch(ids, golden.ShapeOf("mid_ids")[0]);
  const Tensor got = MtpLogitsOf(golden, DType::kF32, mid, MtpInput::kBeforeNorm);
  const std::vector<double> model = Doubles(got), truth = Doubles(golden.Expected(golden.prefix + "mid_mtp_logits"));
  const auto vocab = static_cast<size_t>(golden.checkpoint.config().vocab_size);
  TriedFault tried{"mtp_before_norm", "the MTP module is fed with the main model's stream before its final norm"};
  for (size_t at = 0; at + vocab <= std::min(truth.size(), model.size()); at += vocab) {
    const double kl = KlDivergence(std::span(truth).subspan(at, vocab), std::span(model).subspan(at, vocab));
    if (!(kl <= tried.max_kl)) tried.max_kl = kl;
  }
  tried.within_the_bars = tried.max_kl <= kKlBound;
  return tried;
}

}  // namespace

std::optional<GoldenPlace> FirstHiddenState(const GoldenCase& golden, const GoldenArrays& got) {
  for (int64_t i = 0; i <= golden.checkpoint.config().num_hidden_layers; ++i) {
    const std::string name = golden.prefix + "short_hidden." + std::to_string(i);
    const auto own = got.find(name);
    if (own == got.end() || !golden.Has(name)) continue;
    const std::vector<double> x = Doubles(own->second), truth = Doubles(golden.Expected(name));
    const auto width = static_cast<size_t>(own->second.dim(2)), length = static_cast<size_t>(own->second.dim(1));
    double largest = 1;
    for (const double v : truth) largest = std::max(largest, std::fabs(v));
    for (size_t j = 0; j < std::min(x.size(), truth.size()); ++j) {
      if (std::fabs(x[j] - truth[j]) <= kHiddenBound * largest) continue;
      return GoldenPlace{i - 1, static_cast<int64_t>(j / width / length), static_cast<int64_t>(j / width % length)};
    }
  }
  return std::nullopt;
}

GoldenDiagnosis DiagnoseGolden(const GoldenCase& golden, const std::vector<GoldenRow>& rows, FunctionRef<void()> after_each) {
  GoldenDiagnosis diagnosis;
  if (!Misses(golden, rows, "short_logits", "KL") && !Misses(golden, rows, "mid_logits", "KL")) {
    if (!Misses(golden, rows, "mid_mtp_logits", "relative L2")) return diagnosis;
    diagnosis.tried = {TryMtpBeforeNorm(golden)};
    if (diagnosis.tried[0].within_the_bars) diagnosis.cause = diagnosis.tried[0];
    after_each();
    return diagnosis;
  }
  const ForwardModel model(golden.checkpoint, DType::kF32);
  FaultSearch search(model, {}, {.max_kl_div = kKlBound});
  for (const GoldenLogits& s : Sequences(golden, "short_ids", "short_logits", 0)) search.Add(s, after_each);
  for (const GoldenLogits& s : Sequences(golden, "mid_ids", "mid_logits", 1)) search.Add(s, after_each);
  diagnosis.tried = search.Tried();
  diagnosis.cause = search.Cause();
  return diagnosis;
}

}  // namespace fathom
