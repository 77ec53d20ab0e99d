#include "fathom/tokenizer/added_tokens.h"

namespace fathom {
namespace {

uint64_t Edge(uint32_t node, char byte) { return (uint64_t{node} << 8) | static_cast<unsigned char>(byte); }

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens) : ids_(1, -1) {
  for (const AddedToken& token : tokens) {
    uint32_t node = 0;
    for (const char byte : token.content) {
      const auto [it, added] = children_.try_emplace(Edge(node, byte), static_cast<uint32_t>(ids_.size()));
      if (added) ids_.push_back(-1);
      if (node == 0) first_[static_cast<unsigned char>(byte)] = it->second;
      node = it->second;
    }
    if (node != 0) ids_[node] = token.id;
  }
}

AddedTokenMatcher::Match AddedTokenMatcher::LongestAt(std::string_view text, size_t begin) const {
  Match best{begin, 0, -1};
  uint32_t node = first_[static_cast<unsigned char>(text[begin])];
  for (size_t i = begin + 1; node != 0; ++i) {
    if (ids_[node] >= 0) best = {begin, i - begin, ids_[node]};
    if (i == text.size()) break;
    const auto it = children_.find(Edge(node, text[i]));
    node = it == children_.end() ? 0 : it->second;
  }
  return best;
}

AddedTokenMatcher::Match AddedTokenMatcher::Find(std::string_view text, size_t from) const {
  for (size_t i = from; i < text.size(); ++i) {
    if (first_[static_cast<unsigned char>(text[i])] == 0) continue;
    const Match match = LongestAt(text, i);
    if (match.length > 0) return match;
  }
  return {text.size(), 0, -1};
}

}  // namespace fathom
