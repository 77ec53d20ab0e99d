#include <algorithm>
#include <cmath>
#include <numeric>

#include "fathom/eval/golden.h"
#include "fathom/eval/golden_arrays.h"
#include "fathom/eval/logits.h"

namespace fathom {
namespace {

constexpr double kGradientBound = 1e-5, kLossBound = 2e-5, kNormBound = 2e-4, kLogitFactor = 2.5;

double MaxAbsDifference(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::fabs(a[i] - b[i]);
    if (!(d <= worst)) worst = d;  // NaN wins
  }
  return worst;
}

double MaxAbs(const std::vector<double>& a) {
  double worst = 0;
  for (const double x : a) worst = std::max(worst, std::fabs(x));
  return worst;
}

double RelativeL2Error(const std::vector<double>& a, const std::vector<double>& truth) {
  double difference = 0, norm = 0, own = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - truth[i]) * (a[i] - truth[i]);
    norm += truth[i] * truth[i];
    own += a[i] * a[i];
  }
  return norm > 1e-24 ? std::sqrt(difference / norm) : std::sqrt(own);
}

struct Comparison {
  const GoldenCase& golden;
  std::string name;
  std::vector<double> got, truth;
  int64_t vocab;

  GoldenRow Row(const std::string& measure, double error, double bound, double reference = 0) const {
    return {name, measure, MaxAbsDifference(got, truth), error, bound, reference, error <= bound};
  }
  bool Named(const std::string& part) const { return name.find(part) != name.npos; }

  // transformers' own float32 error for logits of this id set.
  double Yardstick() const {
    const std::string set = Named("short_") ? "f32_short" : Named("mid_") ? "f32_mid" : "f32_long";
    const Json& errors = golden.info.value("transformers_error", Json::object());
    return errors.contains(set) ? errors[set].value("max_abs", 0.0) : 0.0;
  }

  double WorstKl() const {
    double worst = 0;
    const auto v = static_cast<size_t>(vocab);
    for (size_t at = 0; at + v <= truth.size(); at += v) {
      const double kl = KlDivergence(std::span(truth).subspan(at, v), std::span(got).subspan(at, v));
      if (!(std::fabs(kl) <= worst)) worst = std::fabs(kl);
    }
    return worst;
  }

  // Relative error of a stage's loss, cross entropy, KL and gradient norm. The warm-up has no head, and so no cross entropy.
  double WorstStepColumn() const {
    double worst = 0;
    for (size_t i = 0; i < truth.size(); ++i) {
      if (i % 4 == 1 && Named("warmup")) continue;
      const double error = std::fabs(got[i] - truth[i]) / std::fabs(truth[i]);
      if (!(error <= worst)) worst = error;
    }
    return worst;
  }

  void Compare(std::vector<GoldenRow>& rows) const {
    if (Named("router_ids") || Named("top_mask")) {
      rows.push_back(Row("differences", MaxAbsDifference(got, truth), 0));
    } else if (name.ends_with(".steps")) {
      rows.push_back(Row("max rel", WorstStepColumn(), kNormBound));
    } else if (Named("logits") && !Named("mtp")) {
      const double reference = Yardstick();
      rows.push_back(Row("max abs", MaxAbsDifference(got, truth), reference > 0 ? kLogitFactor * reference : kGradientBound * MaxAbs(truth),
                         reference));
      rows.push_back(Row("KL", WorstKl(), kKlBound));
    } else if (Named("hidden")) {
      rows.push_back(Row("max rel", MaxAbsDifference(got, truth) / std::max(1.0, MaxAbs(truth)), kHiddenBound));
    } else if (Named("train_losses") || Named("train_grad_norms")) {
      rows.push_back(Row("max rel", MaxAbsDifference(got, truth) / MaxAbs(truth), Named("norms") ? kNormBound : kLossBound));
    } else {
      rows.push_back(Row("relative L2", RelativeL2Error(got, truth), kGradientBound));
    }
  }
};

// Whether ComputeGolden owes this array. Ids, margins and transformers' BF16 are given; an indexer's scores and the logits without it are
// no output of the engine. An FP8 folder's arrays without the prefix are those of the folder converted to BF16.
bool ToCompute(const GoldenCase& golden, const std::string& name) {
  if (!name.starts_with(golden.prefix) || name.ends_with("_ids")) return false;
  constexpr const char* kOthers[] = {"top_margin", "indexer_scores", "dense_logits", "hf_bf16."};
  return std::ranges::none_of(kOthers, [&](const char* part) { return name.find(part) != name.npos; });
}

}  // namespace

std::vector<GoldenRow> CompareGolden(const GoldenCase& golden, const GoldenArrays& got) {
  std::vector<GoldenRow> rows;
  for (const TensorEntry& entry : golden.expected->entries()) {
    if (ToCompute(golden, entry.name) && !got.contains(entry.name)) rows.push_back({entry.name, "not computed"});
  }
  for (const auto& [name, value] : got) {
    if (!golden.Has(name)) continue;
    const Tensor truth = golden.Expected(name);
    const Comparison c{golden, name, Doubles(value), Doubles(truth), golden.checkpoint.config().vocab_size};
    if (c.got.size() != c.truth.size()) {
      rows.push_back({name, fmt::format("shape {} for {}", value.shape().ToString(), truth.shape().ToString())});
    } else {
      c.Compare(rows);
    }
  }
  return rows;
}

}  // namespace fathom
