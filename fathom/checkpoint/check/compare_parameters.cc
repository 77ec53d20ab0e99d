#include "fathom/checkpoint/check/compare_parameters.h"

#include <algorithm>
#include <set>

#include "fathom/base/threads.h"
#include "fathom/checkpoint/check/parameter_values.h"

namespace fathom {
namespace {

using R = ParamRole;

// The matrix that it could have changed places with inside its MLP.
std::optional<R> PartnerOf(R role) {
  constexpr std::pair<R, R> kPairs[] = {{R::kMlpGate, R::kMlpUp}, {R::kExpertGate, R::kExpertUp}, {R::kSharedGate, R::kSharedUp}};
  for (const auto& [gate, up] : kPairs) {
    if (role == gate) return up;
    if (role == up) return gate;
  }
  return std::nullopt;
}

// Where the rotary rows of a parameter lie: `width` of them from `first` on in each `stride` rows.
struct RotaryRows {
  int64_t first, stride, width;
};
std::optional<RotaryRows> RotaryRowsOf(const ModelConfig& c, R role) {
  switch (role) {
    case R::kQuery:
    case R::kQueryUp:
      return RotaryRows{c.qk_nope_head_dim, c.qk_head_dim(), c.qk_rope_head_dim};
    case R::kKvDown:
      return RotaryRows{c.kv_lora_rank, c.kv_lora_rank + c.qk_rope_head_dim, c.qk_rope_head_dim};
    case R::kIndexerQuery:
    case R::kIndexerKey:
    case R::kIndexerKeyNorm:
    case R::kIndexerKeyNormBias:
      return RotaryRows{0, c.index_head_dim, c.qk_rope_head_dim};
    default:
      return std::nullopt;
  }
}

// The row of a that b's row i is if b has the rotary rows in halves and a in pairs, or the reverse.
int64_t SourceRow(const RotaryRows& rows, bool to_halves, int64_t i) {
  const int64_t at = i % rows.stride - rows.first, half = rows.width / 2;
  if (at < 0 || at >= rows.width) return i;
  const int64_t source = to_halves ? at % half * 2 + at / half : at % 2 * half + at / 2;
  return i - at + source;
}

// The parameters of one layer, or of what lies outside the layers, on both sides.
class Group {
 public:
  Group(const Checkpoint& a, const Checkpoint& b, std::span<const ParamSpec* const> params) : config_(a.config()), params_(params) {
    for (const ParamSpec* p : params) {
      a_.emplace_back(a.GetWeight(p->name));
      b_.emplace_back(b.GetWeight(p->name));
    }
  }

  // What happened to each; nothing to those that are the same.
  std::vector<std::optional<ParameterCause>> Compare() const {
    const int64_t n = std::ssize(params_);
    std::vector<std::optional<ParameterCause>> causes(params_.size());
    ParallelJobs(n, [&](int64_t i) {
      const auto at = static_cast<size_t>(i);
      if (!SameBytes(a_[at], b_[at]) && !IsNarrowed(a_[at], b_[at], Narrowing::kNone)) causes[at] = CauseOf(at);
    });
    return causes;
  }

 private:
  using Cause = ParameterCause;

  Cause CauseOf(size_t i) const {
    const ParameterValues &a = a_[i], &b = b_[i];
    if (SameCodes(a, b)) return Cause::kFp8Scales;
    if (IsZero(b)) return Cause::kZeroed;
    if (IsOfOtherExpert(i)) return Cause::kExpertsPermuted;
    if (IsSwapped(i)) return Cause::kGateUpSwapped;
    if (IsTransposed(a, b)) return Cause::kTransposed;
    if (HasMovedRotaryRows(i)) return Cause::kRopeRows;
    return IsRounded(a, b) ? Cause::kRounded : Cause::kValues;
  }

  static bool IsRounded(const ParameterValues& a, const ParameterValues& b) {
    const std::set<Narrowing> candidates{NarrowingOf(a, b), Narrowing::kBF16, Narrowing::kF16};
    return std::ranges::any_of(candidates, [&](Narrowing n) { return n != Narrowing::kNone && IsNarrowed(a, b, n); });
  }

  bool IsOfOtherExpert(size_t i) const {
    const ParamSpec& p = *params_[i];
    if (p.role == R::kRouter || p.role == R::kRouterBias) return HasPermutedRowsOf(a_[i], b_[i]);
    if (!p.is_expert()) return false;
    for (size_t j = 0; j < params_.size(); ++j) {
      if (j != i && params_[j]->role == p.role && IsNarrowed(a_[j], b_[i], NarrowingOf(a_[j], b_[i]))) return true;
    }
    return false;
  }

  bool IsSwapped(size_t i) const {
    const auto partner = PartnerOf(params_[i]->role);
    if (!partner) return false;
    const auto at =
        std::ranges::find_if(params_, [&](const ParamSpec* p) { return p->role == *partner && p->expert == params_[i]->expert; });
    if (at == params_.end()) return false;
    const auto j = static_cast<size_t>(at - params_.begin());
    return IsNarrowed(a_[j], b_[i], NarrowingOf(a_[j], b_[i])) && IsNarrowed(a_[i], b_[j], NarrowingOf(a_[i], b_[j]));
  }

  bool HasMovedRotaryRows(size_t i) const {
    const auto rows = RotaryRowsOf(config_, params_[i]->role);
    if (!rows) return false;
    const auto moved = [&](bool to_halves) {
      return HasRowsOf(a_[i], b_[i], [&](int64_t row) { return SourceRow(*rows, to_halves, row); });
    };
    return moved(true) || moved(false);
  }

  const ModelConfig& config_;
  std::span<const ParamSpec* const> params_;
  std::vector<ParameterValues> a_, b_;
};

// The parameters of both; MTP modules may be missing in one.
std::vector<const ParamSpec*> CommonParameters(const Checkpoint& a, const Checkpoint& b, const ModelSpec& of_a, const ModelSpec& of_b) {
  std::vector<const ParamSpec*> common;
  const auto check = [&](const ParamSpec& p, const ModelSpec& other, const Checkpoint& has, const Checkpoint& lacks) {
    const ParamSpec* same = other.Find(p.name);
    if (same == nullptr && p.is_mtp()) return false;
    if (same == nullptr || same->shape != p.shape) {
      Throw(ErrorCode::kInput,
            "{} and {} are no models of one shape: {} is {} in the first, {} in the second; compare two of the same sizes",
            has.dir().string(), lacks.dir().string(), p.name, p.shape.ToString(), same == nullptr ? "absent" : same->shape.ToString());
    }
    return true;
  };
  for (const ParamSpec& p : of_a) {
    if (check(p, of_b, a, b)) common.push_back(&p);
  }
  for (const ParamSpec& p : of_b) check(p, of_a, b, a);
  return common;
}

// One behind the last of those from `begin` on that belong to the same layer.
size_t EndOfGroup(std::span<const ParamSpec* const> params, size_t begin) {
  size_t end = begin;
  while (end < params.size() && params[end]->layer == params[begin]->layer) ++end;
  return end;
}

void AddDifferences(const Json& a, const Json& b, const std::string& prefix, std::vector<ConfigDifference>& differences) {
  constexpr const char* kOfStorage[] = {"dtype", "torch_dtype", "quantization_config", "architectures"};
  Json all = a;
  all.update(b);
  for (const auto& [key, value] : all.items()) {
    if (std::ranges::count(kOfStorage, key) > 0) continue;
    const Json x = a.value(key, Json()), y = b.value(key, Json());
    if (x == y) continue;
    if (x.is_object() && y.is_object()) {
      AddDifferences(x, y, prefix + key + ".", differences);
    } else {
      differences.push_back({prefix + key, x, y});
    }
  }
}

}  // namespace

const char* CauseName(ParameterCause cause) {
  constexpr const char* kNames[] = {"experts_permuted", "gate_up_swapped", "transposed", "rope_rows",
                                    "fp8_scales",       "zeroed",          "rounded",    "values"};
  return kNames[static_cast<size_t>(cause)];
}

std::vector<ParameterDifference> CompareParameters(const Checkpoint& a, const Checkpoint& b, FunctionRef<void(int64_t)> progress) {
  const ModelSpec of_a(a.config()), of_b(b.config());
  const std::vector<const ParamSpec*> all = CommonParameters(a, b, of_a, of_b);
  std::vector<ParameterDifference> differences;
  int64_t bytes = 0;
  for (size_t begin = 0, end; begin < all.size(); begin = end) {
    end = EndOfGroup(all, begin);
    const std::span group(all.begin() + static_cast<std::ptrdiff_t>(begin), end - begin);
    const auto causes = Group(a, b, group).Compare();
    for (size_t i = 0; i < group.size(); ++i) {
      const ParamSpec& p = *group[i];
      a.DropPages(p.name);
      b.DropPages(p.name);
      bytes += a.Find(p.name)->NumBytes();
      if (!causes[i]) continue;
      const bool behind = p.role == R::kFinalNorm || p.role == R::kHead;
      const std::string name = causes[i] == ParameterCause::kFp8Scales ? p.name + std::string(kScaleSuffix) : p.name;
      differences.push_back({name, behind ? a.config().num_hidden_layers : p.layer, *causes[i]});
    }
    progress(bytes);
  }
  return differences;
}

std::vector<ConfigDifference> CompareConfigs(const ModelConfig& a, const ModelConfig& b) {
  const auto understood = [](ModelConfig config) {
    config.raw = Json();
    return ModelConfigToJson(config);
  };
  std::vector<ConfigDifference> differences;
  AddDifferences(understood(a), understood(b), "", differences);
  return differences;
}

}  // namespace fathom
