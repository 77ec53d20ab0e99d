// Finds the added tokens (<｜User｜>, ...) in text: leftmost, and of those that begin together the longest.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fathom {

struct AddedToken {
  int32_t id;
  std::string content;
  bool special;     // dropped by skip_special
  bool normalized;  // matched after the others, in the text between them
};

class AddedTokenMatcher {
 public:
  explicit AddedTokenMatcher(const std::vector<AddedToken>& tokens);

  struct Match {
    size_t begin, length;  // bytes; length 0: none, begin is then the end of the text
    int32_t id;
  };
  // The first match at or after from. O(length of the text * longest token) for a whole text.
  Match Find(std::string_view text, size_t from) const;
  bool empty() const { return children_.empty(); }

 private:
  Match LongestAt(std::string_view text, size_t begin) const;

  std::vector<int32_t> ids_;                         // by node of a trie over bytes, 0 its root: the token that ends here, -1: none
  std::unordered_map<uint64_t, uint32_t> children_;  // node << 8 | byte -> node
  std::array<uint32_t, 256> first_{};                // children of the root; 0: none
};

}  // namespace fathom
