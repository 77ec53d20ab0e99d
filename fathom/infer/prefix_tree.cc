#include "fathom/infer/prefix_tree.h"

#include <algorithm>
#include <numeric>

namespace fathom {
namespace {

int64_t Shared(const ScoredPrompt& a, const ScoredPrompt& b) {
  const int64_t most = std::min(a.Shareable(), b.Shareable());
  return std::mismatch(a.ids.begin(), a.ids.begin() + most, b.ids.begin()).first - a.ids.begin();
}

class TreeBuilder {
 public:
  explicit TreeBuilder(std::span<const ScoredPrompt> prompts) : prompts_(prompts), order_(prompts.size()), shared_(prompts.size()) {
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::ranges::stable_sort(order_, {}, [&](size_t i) -> const std::vector<int32_t>& { return prompts[i].ids; });
    for (size_t i = 1; i < order_.size(); ++i) shared_[i] = Shared(prompts[order_[i - 1]], prompts[order_[i]]);
  }

  // Prompts order_[begin..end), which share `depth` tokens, the parent's and those before.
  void Add(size_t begin, size_t end, int64_t depth, int64_t parent) {
    if (end - begin > 1) {
      const int64_t all = *std::min_element(Between(begin) + 1, Between(end));
      if (all >= depth + kLeastShared) {
        nodes.push_back({parent, depth, all, order_[begin], false});
        parent = std::ssize(nodes) - 1;
        depth = all;
      }
    }
    for (size_t first = begin; first < end;) {
      size_t last = first + 1;
      while (last < end && shared_[last] >= depth + kLeastShared) ++last;
      if (last - first > 1) {
        Add(first, last, depth, parent);  // fewer than before: somewhere the least that all share ends
      } else {
        nodes.push_back({parent, depth, std::ssize(prompts_[order_[first]].ids), order_[first], true});
      }
      first = last;
    }
  }

  std::vector<PrefixNode> nodes;

 private:
  std::vector<int64_t>::const_iterator Between(size_t i) const { return shared_.begin() + static_cast<std::ptrdiff_t>(i); }

  std::span<const ScoredPrompt> prompts_;
  std::vector<size_t> order_;    // the prompts, like beginnings side by side
  std::vector<int64_t> shared_;  // tokens that order_[i] shares with the one before it
};

}  // namespace

int64_t SharedLength(std::span<const ScoredPrompt> prompts) {
  if (prompts.size() < 2) return 0;
  int64_t shared = prompts[0].Shareable();
  for (const ScoredPrompt& p : prompts) shared = std::min(shared, Shared(prompts[0], p));
  return shared;
}

std::vector<PrefixNode> BuildPrefixTree(std::span<const ScoredPrompt> prompts, int64_t depth) {
  TreeBuilder builder(prompts);
  builder.Add(0, prompts.size(), depth, -1);
  return std::move(builder.nodes);
}

}  // namespace fathom
