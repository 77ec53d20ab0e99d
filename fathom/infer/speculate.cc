#include "fathom/infer/speculate.h"

#include <algorithm>

#include "fathom/base/clock.h"
#include "fathom/base/rng.h"

namespace fathom {
namespace {

std::span<const float> Row(ConstView logits, int64_t i) { return {logits.row<float>(i), static_cast<size_t>(logits.dim(1))}; }

}  // namespace

Verdict JudgeDraft(std::span<const float> target, std::span<const float> draft, int32_t drafted, std::span<const double, 2> uniforms) {
  const auto at = static_cast<size_t>(drafted);
  if (uniforms[0] * static_cast<double>(draft[at]) < static_cast<double>(target[at])) return {drafted, true};
  std::vector<float> rest(target.size());
  for (size_t i = 0; i < rest.size(); ++i) rest[i] = std::max(target[i] - draft[i], 0.0f);
  const int32_t id = DrawIndex(rest, uniforms[1]);
  return {id >= 0 ? id : ArgMax(target), false};  // nothing left: the two are equal but for rounding
}

Speculator::Speculator(Engine& engine, Sampler& sampler, int64_t draft_tokens, uint64_t seed)
    : engine_(engine),
      sampler_(sampler),
      draft_tokens_(draft_tokens),
      seed_(seed),
      draft_distributions_(static_cast<size_t>(draft_tokens)) {}

std::span<const int32_t> Speculator::Next(int32_t last, int64_t index, int64_t room) {
  const Stopwatch clock;
  out_.clear();
  const int64_t drafts = std::min(draft_tokens_, room - 1);
  if (drafts == 0) {
    PlainPass(last, index);
    return out_;
  }
  if (cost_.UseDrafts()) {
    DraftingPass(last, index, drafts);
  } else {
    PlainPass(last, index);
  }
  cost_.Note(std::ssize(out_), clock.Seconds());
  return out_;
}

void Speculator::PlainPass(int32_t last, int64_t index) { out_.push_back(sampler_.Sample(engine_.Append({&last, 1}), index)); }

void Speculator::Draft(int32_t last, int64_t index, int64_t drafts) {
  const CounterRng rng(seed_, HashName("draft"));
  candidates_.assign(1, last);
  for (int64_t i = 0; i < drafts; ++i) {
    const auto q = sampler_.Distribution(i == 0 ? engine_.FirstDraft(last) : engine_.NextDraft(candidates_.back()));
    draft_distributions_[static_cast<size_t>(i)].assign(q.begin(), q.end());
    candidates_.push_back(std::max(0, DrawIndex(q, rng.Uniform(static_cast<uint64_t>(index + i)))));
  }
}

void Speculator::DraftingPass(int32_t last, int64_t index, int64_t drafts) {
  Draft(last, index, drafts);
  const CounterRng accept(seed_, HashName("accept")), redraw(seed_, HashName("redraw"));
  const ConstView logits = engine_.Verify(candidates_);
  int64_t taken = 0;
  for (bool accepted = true; accepted && taken < drafts; taken += accepted ? 1 : 0) {
    const auto i = static_cast<size_t>(taken), place = static_cast<size_t>(index + taken);
    const double uniforms[2] = {accept.Uniform(place), redraw.Uniform(place)};
    const Verdict v = JudgeDraft(sampler_.Distribution(Row(logits, taken)), draft_distributions_[i], candidates_[i + 1], uniforms);
    out_.push_back(v.id);
    accepted = v.accepted;
  }
  if (taken == drafts) out_.push_back(sampler_.Sample(Row(logits, drafts), index + drafts));
  engine_.Keep(1 + taken);
  drafted_ += drafts;
  accepted_ += taken;
}

}  // namespace fathom
