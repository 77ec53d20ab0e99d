// Prompts as a tree of the beginnings that they share, so that a shared one is computed once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom {

// Tokens, and how many of the last of them want the logits of what follows.
struct ScoredPrompt {
  std::vector<int32_t> ids;
  int64_t scored = 1;  // from 1 to the number of tokens
  // Tokens that may be shared with others: none that is scored.
  int64_t Shareable() const { return std::ssize(ids) - scored; }
};

// The length of the beginning that all prompts share; 0 for a single one, which shares with nobody.
int64_t SharedLength(std::span<const ScoredPrompt> prompts);

// Tokens [begin, end) of a prompt, which follow those of the parent. A leaf ends its prompt; every prompt has one.
struct PrefixNode {
  int64_t parent;  // -1: follows what all share
  int64_t begin, end;
  size_t prompt;  // whose tokens, and the leaf's own prompt
  bool leaf;
};

// Parents stand before their children. `depth` tokens, which all share, are left out. A beginning is shared from kLeastShared tokens on.
std::vector<PrefixNode> BuildPrefixTree(std::span<const ScoredPrompt> prompts, int64_t depth);
inline constexpr int64_t kLeastShared = 16;

}  // namespace fathom
