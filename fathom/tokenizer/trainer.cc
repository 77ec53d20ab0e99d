#include "fathom/tokenizer/trainer.h"

#include <algorithm>
#include <queue>
#include <set>

#include "fathom/base/error.h"
#include "fathom/base/progress.h"
#include "fathom/base/threads.h"
#include "fathom/tokenizer/byte_alphabet.h"

namespace fathom {
namespace {

constexpr int64_t kMaxVocabulary = int64_t{1} << 22;
constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr size_t kMergesPerUpdate = 512;

// Parts of about kChunkBytes that end after a '\n'.
std::vector<std::string_view> SplitAtLines(std::string_view text) {
  std::vector<std::string_view> chunks;
  while (!text.empty()) {
    const size_t newline = text.size() > kChunkBytes ? text.find('\n', kChunkBytes) : text.npos;
    chunks.push_back(text.substr(0, newline == text.npos ? text.size() : newline + 1));
    text.remove_prefix(chunks.back().size());
  }
  return chunks;
}

using ViewCounts = std::unordered_map<std::string_view, int64_t>;

void CountLines(std::string_view text, const PreTokenizer& pre_tokenizer, ViewCounts& counts) {
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline == text.npos ? text.size() : newline + 1);
    text.remove_prefix(line.size());
    PieceCursor pieces(pre_tokenizer, line);
    for (std::string_view piece = pieces.Next(); !piece.empty(); piece = pieces.Next()) ++counts[piece];
  }
}

struct Pair {
  int32_t left, right;
  friend auto operator<=>(const Pair&, const Pair&) = default;
};

struct PairHash {
  size_t operator()(const Pair& p) const {
    const uint64_t h = ((uint64_t{static_cast<uint32_t>(p.left)} << 32) | static_cast<uint32_t>(p.right)) * 0x9E3779B97F4A7C15ull;
    return static_cast<size_t>(h ^ (h >> 32));
  }
};

struct PairState {
  int64_t count = 0;
  std::vector<uint32_t> words;  // where it stands or stood
};

// A count that may be out of date; the largest count first, then the smaller ids.
struct Candidate {
  int64_t count;
  Pair pair;
  bool operator<(const Candidate& other) const { return count != other.count ? count < other.count : pair > other.pair; }
};

class Trainer {
 public:
  Trainer(const WordCounts& counts, int64_t vocab_size, const std::vector<std::string>& special_tokens) : vocab_size_(vocab_size) {
    for (const std::string& token : special_tokens) {
      const bool valid = !token.empty() && ToValidUtf8(token) == token && !ids_.contains(token);
      if (!valid) Throw(ErrorCode::kUsage, "special_tokens: \"{}\" is empty, not UTF-8 or stands twice", ToValidUtf8(token));
      AddToken(token);
    }
    bpe_.special_tokens = static_cast<int64_t>(special_tokens.size());
    AddBytes();
    if (vocab_size < static_cast<int64_t>(bpe_.tokens.size()) || vocab_size > kMaxVocabulary) {
      Throw(ErrorCode::kUsage, "vocab_size={}: at least {} for the special tokens and bytes, at most {}", vocab_size, bpe_.tokens.size(),
            kMaxVocabulary);
    }
    AddWords(counts);
  }

  TrainedBpe Run() {
    Progress progress("learning merges", "tokens", static_cast<double>(vocab_size_));
    while (static_cast<int64_t>(bpe_.tokens.size()) < vocab_size_ && !queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      const int64_t count = pairs_[top.pair].count;
      if (count <= 0) continue;
      if (count == top.count) {
        MergeEverywhere(top.pair);
      } else {
        queue_.push({count, top.pair});
      }
      if (bpe_.merges.size() % kMergesPerUpdate == 0) progress.Update(static_cast<double>(bpe_.tokens.size()));
    }
    if (bpe_.merges.size() >= kMergesPerUpdate) progress.Finish();
    return std::move(bpe_);
  }

 private:
  struct Word {
    size_t begin, length;  // in symbols_
    int64_t count;
  };

  int32_t AddToken(const std::string& token) {
    const auto [it, added] = ids_.try_emplace(token, static_cast<int32_t>(bpe_.tokens.size()));
    if (added) bpe_.tokens.push_back(token);
    return it->second;
  }

  // Ids follow the stand-ins' code points, not the bytes.
  void AddBytes() {
    const auto stand_ins = ByteStandIns();
    std::set<char32_t> sorted(stand_ins.begin(), stand_ins.end());
    for (const char32_t code : sorted) {
      std::string name;
      AppendUtf8(code, name);
      AddToken(name);
    }
    for (size_t b = 0; b < 256; ++b) byte_ids_[b] = ids_.at(BytesToStandIns(std::string(1, static_cast<char>(b))));
  }

  void AddWords(const WordCounts& counts) {
    for (const auto& [bytes, count] : counts) {
      const auto index = static_cast<uint32_t>(words_.size());
      FATHOM_CHECK(words_.size() < 0xFFFFFFFFu);
      words_.push_back({symbols_.size(), bytes.size(), count});
      for (const char b : bytes) symbols_.push_back(byte_ids_[static_cast<unsigned char>(b)]);
      CountPairs(words_.back(), count);
      for (size_t i = 0; i + 1 < bytes.size(); ++i) AddPlace(PairAt(words_.back(), i), index);
    }
    for (const auto& [pair, state] : pairs_) queue_.push({state.count, pair});
  }

  Pair PairAt(const Word& word, size_t i) const { return {symbols_[word.begin + i], symbols_[word.begin + i + 1]}; }

  void CountPairs(const Word& word, int64_t count) {
    for (size_t i = 0; i + 1 < word.length; ++i) pairs_[PairAt(word, i)].count += count;
  }

  void AddPlace(Pair pair, uint32_t word) {
    auto& places = pairs_[pair].words;
    if (places.empty() || places.back() != word) places.push_back(word);
  }

  // Joins the pair within the word; false if it does not occur.
  bool MergeWord(Word& word, Pair pair, int32_t joined) {
    bool found = false;
    for (size_t i = 0; i + 1 < word.length && !found; ++i) found = PairAt(word, i) == pair;
    if (!found) return false;
    CountPairs(word, -word.count);
    int32_t* s = symbols_.data() + word.begin;
    size_t out = 0;
    for (size_t i = 0; i < word.length; ++out) {
      const bool match = i + 1 < word.length && s[i] == pair.left && s[i + 1] == pair.right;
      s[out] = match ? joined : s[i];
      i += match ? 2 : 1;
    }
    word.length = out;
    CountPairs(word, word.count);
    return true;
  }

  void MergeEverywhere(Pair pair) {
    const auto left = static_cast<size_t>(pair.left), right = static_cast<size_t>(pair.right);
    const int32_t joined = AddToken(bpe_.tokens[left] + bpe_.tokens[right]);
    bpe_.merges.push_back({pair.left, pair.right, joined});
    const std::vector<uint32_t> places = std::move(pairs_[pair].words);
    pairs_[pair].words.clear();
    std::set<Pair> changed;
    for (const uint32_t index : places) {
      Word& word = words_[index];
      if (!MergeWord(word, pair, joined)) continue;
      for (size_t i = 0; i + 1 < word.length; ++i) {
        const Pair next = PairAt(word, i);
        if (next.left != joined && next.right != joined) continue;
        AddPlace(next, index);
        changed.insert(next);
      }
    }
    for (const Pair& next : changed) queue_.push({pairs_[next].count, next});
  }

  int64_t vocab_size_;
  TrainedBpe bpe_{{}, 0, {}};
  std::unordered_map<std::string, int32_t> ids_;  // by token as spelled in bpe_.tokens
  std::array<int32_t, 256> byte_ids_{};
  std::vector<int32_t> symbols_;  // of all words, one after the other
  std::vector<Word> words_;
  std::unordered_map<Pair, PairState, PairHash> pairs_;
  std::priority_queue<Candidate> queue_;
};

}  // namespace

void CountWords(std::string_view text, const PreTokenizer& pre_tokenizer, WordCounts& counts) {
  const auto chunks = SplitAtLines(text);
  std::vector<ViewCounts> found(chunks.size());
  ParallelJobs(static_cast<int64_t>(chunks.size()), [&](int64_t i) {
    const auto index = static_cast<size_t>(i);
    CountLines(chunks[index], pre_tokenizer, found[index]);
  });
  for (ViewCounts& part : found) {
    for (const auto& [word, count] : part) {
      const auto it = counts.find(word);
      it == counts.end() ? void(counts.emplace(word, count)) : void(it->second += count);
    }
    part = ViewCounts();
  }
}

TrainedBpe TrainBpe(const WordCounts& counts, int64_t vocab_size, const std::vector<std::string>& special_tokens) {
  return Trainer(counts, vocab_size, special_tokens).Run();
}

}  // namespace fathom
