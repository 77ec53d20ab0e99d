#include "fathom/infer/prompt_scorer.h"

#include <algorithm>
#include <optional>

#include "fathom/infer/sampler.h"

namespace fathom {
namespace {

constexpr int64_t kMostParts = 64;  // of a pass: what short prompts take of the cache stays bounded

// Blocks for the beginning, a prompt that is finished next, and as many as may be begun ahead of it.
int64_t SequencesFor(int64_t capacity) { return 4 + 4 * kMostParts / CachePool::BlocksFor(capacity); }

}  // namespace

// Tokens [fed, end) of a node are still to be computed. Its sequence lives until the last child has copied or finished.
struct PromptScorer::Branch {
  PrefixNode node;
  int64_t fed;
  int64_t children = 0;              // that have not begun
  std::optional<Sequence> sequence;  // once it has begun
  bool done() const { return fed == node.end; }
};

// The passes of one list of prompts.
class PromptScorer::Pass {
 public:
  Pass(Engine& engine, const Sequence& beginning, std::span<const ScoredPrompt> prompts, const TakeLogits& take)
      : engine_(engine), beginning_(beginning), prompts_(prompts), take_(take) {
    for (const PrefixNode& node : BuildPrefixTree(prompts, beginning.length())) {
      branches_.push_back({node, node.begin, 0, {}});
      if (node.parent >= 0) ++branches_[static_cast<size_t>(node.parent)].children;
    }
  }

  void Run() {
    for (size_t first = 0; first < branches_.size();) {
      Fill(first);
      Settle(engine_.Append(parts_));
      while (first < branches_.size() && branches_[first].done()) ++first;
    }
  }

 private:
  bool MayGoOn(const Branch& b) const { return !b.done() && (b.node.parent < 0 || branches_[static_cast<size_t>(b.node.parent)].done()); }

  // A branch ahead of the first unfinished one leaves it room for a whole prompt.
  bool HasRoom(const Branch& b, bool is_first) const {
    const int64_t own = CachePool::BlocksFor(b.node.end - b.node.begin) + 1;
    return is_first || engine_.pool().FreeBlocks() - own >= CachePool::BlocksFor(engine_.model().capacity()) + kMostParts;
  }

  void Begin(Branch& b) {
    if (b.node.parent < 0) {
      b.sequence.emplace(beginning_, b.node.begin);
      return;
    }
    Branch& parent = branches_[static_cast<size_t>(b.node.parent)];
    b.sequence.emplace(*parent.sequence, b.node.begin);
    if (--parent.children == 0) parent.sequence.reset();
  }

  void Fill(size_t first) {
    parts_.clear();
    takes_part_.clear();
    int64_t room = Engine::kPassTokens;
    for (size_t i = first; i < branches_.size() && room > 0 && std::ssize(parts_) < kMostParts; ++i) {
      Branch& b = branches_[i];
      if (!MayGoOn(b)) continue;
      if (!b.sequence && !HasRoom(b, parts_.empty())) break;
      if (!b.sequence) Begin(b);
      const ScoredPrompt& prompt = prompts_[b.node.prompt];
      const int64_t count = std::min(room, b.node.end - b.fed);
      const int64_t scored = b.node.leaf ? std::clamp<int64_t>(b.fed + count - prompt.Shareable(), 0, count) : 0;
      parts_.push_back({&*b.sequence, std::span(prompt.ids).subspan(static_cast<size_t>(b.fed), static_cast<size_t>(count)), scored, true});
      takes_part_.push_back(&b);
      room -= count;
    }
  }

  void Settle(ConstView logits) {
    int64_t row = 0;
    for (size_t i = 0; i < parts_.size(); ++i) {
      Branch& b = *takes_part_[i];
      b.fed += std::ssize(parts_[i].ids);
      for (int64_t k = b.fed - prompts_[b.node.prompt].Shareable() - parts_[i].logits, left = parts_[i].logits; left > 0; --left, ++k) {
        const std::span<const float> values{logits.row<float>(row++), static_cast<size_t>(logits.dim(1))};
        CheckFinite(values);
        take_(b.node.prompt, k, values);
      }
      if (b.done() && b.node.leaf) b.sequence.reset();
    }
  }

  Engine& engine_;
  const Sequence& beginning_;
  std::span<const ScoredPrompt> prompts_;
  const TakeLogits& take_;
  std::vector<Branch> branches_;
  std::vector<Engine::Part> parts_;
  std::vector<Branch*> takes_part_;
};

PromptScorer::PromptScorer(const MappedModel& model, bool by_row)
    : engine_(model, SequencesFor(model.capacity()), by_row), beginning_(engine_.pool()) {}

void PromptScorer::SetBeginning(std::span<const int32_t> ids) {
  if (std::ranges::equal(ids, beginning_.ids)) return;
  engine_.TakeBack(beginning_, beginning_.length());
  for (size_t at = 0; at < ids.size();) {
    const auto chunk = ids.subspan(at, std::min(ids.size() - at, static_cast<size_t>(Engine::kPassTokens)));
    const Engine::Part part{&beginning_, chunk, 0, true};
    engine_.Append({&part, 1});
    at += chunk.size();
  }
}

void PromptScorer::Score(std::span<const ScoredPrompt> prompts, const TakeLogits& take) { Pass(engine_, beginning_, prompts, take).Run(); }

}  // namespace fathom
