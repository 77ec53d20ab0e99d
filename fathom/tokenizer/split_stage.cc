#include "fathom/tokenizer/split_stage.h"

namespace fathom {
namespace {

constexpr uint16_t kLetterOrMark = kLetter | kMark, kPunctuationOrSymbol = kPunctuation | kSymbol;

bool IsAsciiLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// A position in a text. At the end there is a character without class.
class Scanner {
 public:
  Scanner(const CharClassTable& classes, std::string_view text)
      : classes_(classes), begin_(text.data()), end_(text.data() + text.size()), at_(text.data()) {
    Look();
  }

  bool AtEnd() const { return at_ == end_; }
  bool Is(uint16_t any_of) const { return (current_.classes & any_of) != 0; }
  char byte() const { return *at_; }  // not at the end
  size_t consumed() const { return static_cast<size_t>(at_ - begin_); }
  void Advance() {
    at_ += current_.length;
    Look();
  }
  void SkipAll(uint16_t any_of) {
    while (Is(any_of)) Advance();
  }

 private:
  void Look() { current_ = at_ == end_ ? ClassifiedChar{0, 0} : classes_.At(at_, end_); }

  const CharClassTable& classes_;
  const char *begin_, *end_, *at_;
  ClassifiedChar current_;
};

// The length of a run's match at s; 0: there is none.
size_t RunMatch(const SplitStage& stage, Scanner s) {
  size_t matched = 0;
  if (stage.after_space && s.Is(kSpace)) {
    const bool enough = s.Is(stage.classes);  // the ideographic space may be a run by itself
    s.Advance();
    if (enough) matched = s.consumed();
  }
  for (size_t n = 0; n < stage.most && s.Is(stage.classes); ++n) {
    s.Advance();
    matched = s.consumed();
  }
  return matched;
}

// What lies before the first match of a run, where none begins at s.
size_t RunGap(const SplitStage& stage, Scanner s) {
  size_t before_last = 0;
  bool space = false;
  while (!s.AtEnd() && !s.Is(stage.classes)) {
    before_last = s.consumed();
    space = s.Is(kSpace);
    s.Advance();
  }
  return stage.after_space && space && !s.AtEnd() ? before_last : s.consumed();
}

// \s+$, where $ is the end of the text, or of a line: before a newline.
size_t TrailingSpacePiece(Scanner s) {
  while (!s.AtEnd()) {
    const size_t begin = s.consumed();
    size_t end = begin;
    for (; s.Is(kSpace); s.Advance()) {
      if (s.byte() == '\n') end = s.consumed();
    }
    if (s.AtEnd()) end = s.consumed();
    if (end > begin) return begin > 0 ? begin : end;
    while (!s.AtEnd() && !s.Is(kSpace)) s.Advance();
  }
  return s.consumed();
}

// \s*[\r\n]+|\s+(?!\S)|\s+ at white space: up to the last newline of the run; else the run, without its last character where more
// of the text follows and that leaves something.
size_t SpacePiece(Scanner s, bool newlines_first) {
  size_t before_last = 0, after_newline = 0;
  while (s.Is(kSpace)) {
    before_last = s.consumed();
    const bool newline = s.Is(kNewline);
    s.Advance();
    if (newline) after_newline = s.consumed();
  }
  if (newlines_first && after_newline > 0) return after_newline;
  return s.AtEnd() || before_last == 0 ? s.consumed() : before_last;
}

//  ?[\p{P}\p{S}]+[\r\n]* where the optional space has been passed.
size_t PunctuationPiece(Scanner s) {
  s.SkipAll(kPunctuationOrSymbol);
  s.SkipAll(kNewline);
  return s.consumed();
}

// Characters that no alternative matches stay together; the last of them begins the next piece if a letter or mark follows.
size_t UnmatchedPiece(Scanner s) {
  constexpr uint16_t kMatched = kLetterOrMark | kPunctuationOrSymbol | kSpace;
  size_t before_last = 0;
  while (!s.AtEnd() && !s.Is(kMatched)) {
    before_last = s.consumed();
    s.Advance();
  }
  return s.Is(kLetterOrMark) ? before_last : s.consumed();
}

// [!"#...~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
size_t DeepSeekV3Word(Scanner s) {
  const Scanner start = s;
  if (s.Is(kPunctuationOrSymbol)) {
    const bool ascii = static_cast<unsigned char>(s.byte()) < 0x80;
    s.Advance();
    if (ascii && !s.AtEnd() && IsAsciiLetter(s.byte())) {
      while (!s.AtEnd() && IsAsciiLetter(s.byte())) s.Advance();
      return s.consumed();
    }
    return PunctuationPiece(start);
  }
  const bool space = s.byte() == ' ';
  if (!s.Is(kLetter | kNewline)) s.Advance();
  if (s.Is(kLetterOrMark) || start.Is(kMark)) {
    s.SkipAll(kLetterOrMark);
    return s.consumed();
  }
  if (space && s.Is(kPunctuationOrSymbol)) return PunctuationPiece(s);
  return start.Is(kSpace) ? SpacePiece(start, true) : UnmatchedPiece(start);
}

// 's|'t|'re|'ve|'m|'ll|'d: its length, 0 if text does not begin with one.
size_t Contraction(std::string_view text) {
  if (text[0] != '\'') return 0;
  for (const std::string_view ending : {"s", "t", "re", "ve", "m", "ll", "d"}) {
    if (text.substr(1, ending.size()) == ending) return 1 + ending.size();
  }
  return 0;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t Gpt2Word(Scanner s) {
  const Scanner start = s;
  if (s.byte() == ' ') s.Advance();
  if (s.AtEnd() || s.Is(kSpace)) return SpacePiece(start, false);
  if (s.Is(kLetter)) {
    s.SkipAll(kLetter);
  } else if (s.Is(kNumber)) {
    s.SkipAll(kNumber);
  } else {
    while (!s.AtEnd() && !s.Is(kSpace | kLetter | kNumber)) s.Advance();
  }
  return s.consumed();
}

}  // namespace

size_t FirstPiece(const SplitStage& stage, const CharClassTable& classes, std::string_view text) {
  const Scanner start(classes, text);
  switch (stage.kind) {
    case SplitKind::kRun:
      if (const size_t n = RunMatch(stage, start)) return n;
      return RunGap(stage, start);
    case SplitKind::kTrailingSpace:
      return TrailingSpacePiece(start);
    case SplitKind::kDeepSeekV3Words:
      return DeepSeekV3Word(start);
    case SplitKind::kGpt2Words:
      if (const size_t n = Contraction(text)) return n;
      return Gpt2Word(start);
  }
  return text.size();
}

}  // namespace fathom
