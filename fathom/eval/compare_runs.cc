#include "fathom/eval/compare_runs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fathom/eval/exact_forward.h"
#include "fathom/kernels/elementwise/embedding.h"
#include "fathom/layers/router_choice.h"
#include "fathom/model/decoder.h"
#include "fathom/model/load.h"

namespace fathom {
namespace {

// Up to so many multiplications the outputs are compared in double: a second or two.
constexpr double kExactWork = 5e8;
constexpr int64_t kScratchSpace = int64_t{64} << 30;  // address space; memory is taken where it is touched

// One model on its way through its layers.
class Side {
 public:
  Side(const Checkpoint& checkpoint, DType compute, std::span<const int32_t> ids)
      : checkpoint_(checkpoint),
        params_(MapParams(checkpoint)),
        decoder_(checkpoint.config()),
        saved_arena_(1 << 20),
        scratch_(kScratchSpace),
        ctx_{saved_arena_, scratch_, compute},
        ids_(ids),
        positions_(ids.size()),
        all_{0, std::ssize(ids), 0, std::ssize(ids)},
        h_(DType::kF32, {std::ssize(ids), checkpoint.config().hidden_size}) {
    std::iota(positions_.begin(), positions_.end(), 0);
    decoder_.EnsurePositions(std::ssize(ids));
  }

  void Embed() { EmbeddingForward(params_.embed_tokens.value, ids_, h_.mutable_view()); }
  void TakeOver(const Side& other) { Cast(other.h_, h_.mutable_view()); }
  // What the layer before kept is gone after this.
  void Step(int64_t layer) {
    scratch_.Release(0);
    saved_ = decoder_.block(layer).Allocate(scratch_, ctx_.compute, h_.dim(0), false);
    decoder_.ForwardLayer(ctx_, params_, layer, Layout(), h_.mutable_view(), saved_);
    for (const ParamSpec& p : *params_.spec) {
      if (p.layer == layer) checkpoint_.DropPages(p.name);
    }
  }

  int64_t tokens() const { return h_.dim(0); }
  std::span<const float> stream() const { return {h_.data<float>(), static_cast<size_t>(h_.NumElements())}; }
  bool HasIndexer() const { return checkpoint_.config().has_indexer(); }
  bool HasRouter(int64_t layer) const { return decoder_.block(layer).is_moe(); }
  const RouterShape& Router(int64_t layer) const { return decoder_.block(layer).moe().router(); }

  // The keys that a token sees, rising.
  std::vector<int32_t> Keys(int64_t token) const {
    const std::span<const int32_t> chosen = saved_.attention.chosen;
    std::vector<int32_t> keys;
    if (chosen.empty()) {
      keys.resize(static_cast<size_t>(token + 1));
      std::iota(keys.begin(), keys.end(), 0);
      return keys;
    }
    const auto k = chosen.size() / static_cast<size_t>(tokens());
    std::ranges::copy_if(chosen.subspan(static_cast<size_t>(token) * k, k), std::back_inserter(keys), [](int32_t key) { return key >= 0; });
    return keys;
  }
  std::vector<float> KeyScores(int64_t layer, int64_t token) {
    std::vector<float> scores(static_cast<size_t>(token + 1));
    decoder_.IndexerScores(ctx_, params_, layer, Layout(), saved_, token, scores);
    return scores;
  }

  // Experts of a token as the router chose them, by falling score.
  std::vector<int32_t> Experts(int64_t layer, int64_t token) const {
    const auto k = static_cast<size_t>(Router(layer).chosen);
    const auto ids = saved_.moe.ids.subspan(static_cast<size_t>(token) * k, k);
    return {ids.begin(), ids.end()};
  }
  std::vector<float> ExpertScores(int64_t layer, int64_t token) const {
    const Tensor& bias = params_.layers[static_cast<size_t>(layer)].moe.e_score_correction_bias.value;
    const std::span<const float> biases =
        bias.empty() ? std::span<const float>() : std::span(bias.data<float>(), static_cast<size_t>(bias.NumElements()));
    return ChoiceScores({saved_.moe.scores.row<float>(token), static_cast<size_t>(Router(layer).experts)}, biases);
  }
  std::vector<float> GroupScoresOf(int64_t layer, int64_t token) const { return GroupScores(Router(layer), ExpertScores(layer, token)); }
  std::vector<int32_t> Groups(int64_t layer, int64_t token) const {
    std::vector<int32_t> groups = Largest(GroupScoresOf(layer, token), Router(layer).kept_groups);
    std::ranges::sort(groups);
    return groups;
  }

 private:
  TokenLayout Layout() const { return {positions_, {&all_, 1}}; }

  const Checkpoint& checkpoint_;
  DecoderParams params_;
  Decoder decoder_;
  Arena saved_arena_, scratch_;
  Ctx ctx_;
  std::span<const int32_t> ids_;
  std::vector<int32_t> positions_;
  Segment all_;
  Tensor h_;            // [T,D]
  Block::Saved saved_;  // of the last layer, in scratch
};

template <class T>
bool SameRow(std::span<const T> a, std::span<const T> b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), d = x - static_cast<double>(b[i]);
    difference += d * d;
    norm += x * x;
  }
  return std::sqrt(difference) <= kSameOutput * std::sqrt(norm);
}

// The first token whose rows in two streams [T,D] differ.
template <class T>
std::optional<RunDifferences::Place> FirstRow(std::span<const T> a, std::span<const T> b, int64_t tokens, int64_t layer) {
  const auto width = a.size() / static_cast<size_t>(tokens);
  for (int64_t token = 0; token < tokens; ++token) {
    const auto at = static_cast<size_t>(token) * width;
    if (!SameRow(a.subspan(at, width), b.subspan(at, width))) return RunDifferences::Place{layer, token};
  }
  return std::nullopt;
}

// Where the outputs part, in double.
std::optional<RunDifferences::Place> FirstExact(const Checkpoint& a, const Checkpoint& b, std::span<const int32_t> ids) {
  ExactForward first(a, ids), second(b, ids);
  std::optional<RunDifferences::Place> place;
  for (int64_t layer = 0; layer < a.config().num_hidden_layers && !place; ++layer) {
    first.Step(layer);
    second.Step(layer);
    place = FirstRow(std::span(first.stream()), std::span(second.stream()), std::ssize(ids), layer);
  }
  return place;
}

std::vector<ScoredChoice> WithScores(const std::vector<int32_t>& ids, const std::vector<float>& scores) {
  std::vector<ScoredChoice> choice;
  for (const int32_t id : ids) choice.push_back({id, scores[static_cast<size_t>(id)]});
  return choice;
}

std::vector<int32_t> Sorted(std::vector<int32_t> ids) {
  std::ranges::sort(ids);
  return ids;
}

// The first token at which the two indexers chose other keys.
std::optional<RunDifferences::Choice> IndexerChoice(Side& a, Side& b, int64_t layer) {
  if (!a.HasIndexer() || !b.HasIndexer()) return std::nullopt;
  for (int64_t t = 0; t < a.tokens(); ++t) {
    const std::vector<int32_t> x = a.Keys(t), y = b.Keys(t);
    if (x != y)
      return RunDifferences::Choice{layer, t, "indexer", WithScores(x, a.KeyScores(layer, t)), WithScores(y, b.KeyScores(layer, t))};
  }
  return std::nullopt;
}

// Likewise of the two routers: groups, if they are why.
std::optional<RunDifferences::Choice> RouterChoice(const Side& a, const Side& b, int64_t layer) {
  if (!a.HasRouter(layer) || !b.HasRouter(layer)) return std::nullopt;
  for (int64_t t = 0; t < a.tokens(); ++t) {
    const std::vector<int32_t> x = a.Experts(layer, t), y = b.Experts(layer, t);
    if (Sorted(x) == Sorted(y)) continue;
    const std::vector<int32_t> of_a = a.Groups(layer, t), of_b = b.Groups(layer, t);
    if (of_a != of_b)
      return RunDifferences::Choice{layer, t, "group", WithScores(of_a, a.GroupScoresOf(layer, t)),
                                    WithScores(of_b, b.GroupScoresOf(layer, t))};
    return RunDifferences::Choice{layer, t, "router", WithScores(x, a.ExpertScores(layer, t)), WithScores(y, b.ExpertScores(layer, t))};
  }
  return std::nullopt;
}

}  // namespace

void CheckTokens(const Checkpoint& checkpoint, std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= checkpoint.config().vocab_size)
      Throw(ErrorCode::kInput, "token {}: the vocabulary of {} is 0..{}", id, checkpoint.dir().string(),
            checkpoint.config().vocab_size - 1);
  }
}

RunDifferences CompareRuns(const Checkpoint& a, const Checkpoint& b, DType compute, std::span<const int32_t> ids, int64_t from,
                           FunctionRef<void(int64_t)> progress) {
  CheckTokens(a, ids);
  const bool exact = compute == DType::kF32 && ExactForward::Work(a.config(), std::ssize(ids)) <= kExactWork;
  Side first(a, compute, ids), second(b, compute, ids);
  RunDifferences found;
  if (exact) found.first = FirstExact(a, b, ids);
  first.Embed();
  if (from <= 0) second.Embed();
  for (int64_t layer = 0; layer < a.config().num_hidden_layers && !(found.first && found.choice); ++layer) {
    if (layer == from && layer > 0) second.TakeOver(first);
    first.Step(layer);
    if (layer >= from) {
      second.Step(layer);
      if (!exact && !found.first) found.first = FirstRow(first.stream(), second.stream(), first.tokens(), layer);
      if (!found.choice) found.choice = IndexerChoice(first, second, layer);
      if (!found.choice) found.choice = RouterChoice(first, second, layer);
    }
    progress(layer + 1);
  }
  return found;
}

}  // namespace fathom
