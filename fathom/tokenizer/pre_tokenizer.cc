#include "fathom/tokenizer/pre_tokenizer.h"

#include <array>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr std::array<std::string_view, 3> kDeepSeekV3Patterns = {
    R"(\p{N}{1,3})", R"([一-龥぀-ゟ゠-ヿ]+)",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
    "\\s*[\r\n]+|\\s+(?!\\S)|\\s+"};

constexpr uint8_t kLetterOrMark = kLetter | kMark, kPunctuationOrSymbol = kPunctuation | kSymbol;

bool IsAsciiLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// A position in one segment: what the Splits before the last one left whole. Past the segment's end a character has no class.
class Scanner {
 public:
  // The segment ends before the first character that has a class of `outside` after its classes are xor-ed with `flip`.
  Scanner(const CharClassTable& classes, std::string_view text, uint8_t flip, uint8_t outside)
      : classes_(classes), begin_(text.data()), end_(text.data() + text.size()), flip_(flip), outside_(outside) {
    Seek(begin_);
  }

  bool AtEnd() const { return length_ == 0; }
  bool Is(uint8_t any_of) const { return (current_ & any_of) != 0; }
  uint8_t current() const { return current_; }
  char byte() const { return *at_; }  // not at the end
  const char* at() const { return at_; }
  size_t consumed() const { return static_cast<size_t>(at_ - begin_); }
  void Advance() { Seek(at_ + length_); }
  void SkipAll(uint8_t any_of) {
    while (Is(any_of)) Advance();
  }
  void Seek(const char* at) {
    at_ = at;
    current_ = length_ = 0;
    if (at == end_) return;
    const ClassifiedChar c = classes_.At(at, end_);
    if (((c.classes ^ flip_) & outside_) != 0) return;
    current_ = c.classes;
    length_ = c.length;
  }

 private:
  const CharClassTable& classes_;
  const char *begin_, *end_, *at_;
  uint8_t flip_, outside_, current_, length_;
};

// \s*[\r\n]+|\s+(?!\S)|\s+ at white space: up to the last newline of the run; else the run, without its last character where more
// of the segment follows and that leaves something.
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
  constexpr uint8_t kAnyClass = kLetterOrMark | kNumber | kPunctuationOrSymbol | kSpace;
  size_t before_last = 0;
  while (!s.AtEnd() && !s.Is(kAnyClass)) {
    before_last = s.consumed();
    s.Advance();
  }
  return s.Is(kLetterOrMark) ? before_last : s.consumed();
}

size_t LastSplitPiece(Scanner s) {
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

size_t DeepSeekV3Piece(const CharClassTable& classes, std::string_view text) {
  const ClassifiedChar first = classes.At(text.data(), text.data() + text.size());
  if ((first.classes & kNumber) != 0) {
    Scanner s(classes, text, 0, 0);
    for (int n = 0; n < 3 && s.Is(kNumber); ++n) s.Advance();
    return s.consumed();
  }
  return LastSplitPiece(Scanner(classes, text, first.classes & kCjk, kCjk | kNumber));
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
size_t Gpt2Piece(const CharClassTable& classes, std::string_view text) {
  if (const size_t n = Contraction(text)) return n;
  Scanner s(classes, text, 0, 0);
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

const Json& Field(const Json& entry, const char* name, const std::string& where) {
  const auto it = entry.is_object() ? entry.find(name) : entry.end();
  if (it == entry.end()) Throw(ErrorCode::kInput, "{}: pre_tokenizer: no \"{}\"", where, name);
  return *it;
}

bool IsTrue(const Json& entry, const char* name, bool absent) {
  const auto it = entry.find(name);
  return it == entry.end() || !it->is_boolean() ? absent : it->get<bool>();
}

[[noreturn]] void Unknown(const std::string& what, const std::string& where) {
  Throw(ErrorCode::kInput,
        "{}: pre_tokenizer: {} is not supported; known are DeepSeek-V3's three Splits with ByteLevel, and ByteLevel alone", where,
        what.size() > 120 ? ToValidUtf8(what.substr(0, 120)) + "..." : what);
}

PreTokenizer::Kind ByteLevelKind(const Json& entry, const std::string& where) {
  if (Field(entry, "type", where) != "ByteLevel") Unknown(Field(entry, "type", where).dump(), where);
  if (IsTrue(entry, "add_prefix_space", true)) Unknown("add_prefix_space", where);
  return IsTrue(entry, "use_regex", true) ? PreTokenizer::Kind::kGpt2 : PreTokenizer::Kind::kWhole;
}

void CheckSplit(const Json& entry, std::string_view pattern, const std::string& where) {
  if (Field(entry, "type", where) != "Split") Unknown(Field(entry, "type", where).dump(), where);
  const Json& found = Field(Field(entry, "pattern", where), "Regex", where);
  if (found != pattern) Unknown("the pattern " + found.dump(), where);
  if (Field(entry, "behavior", where) != "Isolated" || IsTrue(entry, "invert", false)) Unknown("a Split that is not \"Isolated\"", where);
}

Json ByteLevelJson(bool use_regex) {
  return Json{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

}  // namespace

PreTokenizer PreTokenizer::FromJson(const Json& entry, const std::string& where) {
  if (Field(entry, "type", where) != "Sequence") return PreTokenizer(ByteLevelKind(entry, where));
  const Json& parts = Field(entry, "pretokenizers", where);
  if (!parts.is_array() || parts.empty()) Unknown("an empty sequence", where);
  if (parts.size() == 1) return PreTokenizer(ByteLevelKind(parts[0], where));
  if (parts.size() != 4) Unknown("a sequence of " + std::to_string(parts.size()), where);
  for (size_t i = 0; i < 3; ++i) CheckSplit(parts[i], kDeepSeekV3Patterns[i], where);
  if (ByteLevelKind(parts[3], where) != Kind::kWhole) Unknown("ByteLevel with its own pattern after the Splits", where);
  return PreTokenizer(Kind::kDeepSeekV3);
}

Json PreTokenizer::ToJson() const {
  if (kind_ != Kind::kDeepSeekV3) return ByteLevelJson(kind_ == Kind::kGpt2);
  Json parts = Json::array();
  for (const std::string_view pattern : kDeepSeekV3Patterns) {
    parts.push_back({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  parts.push_back(ByteLevelJson(false));
  return Json{{"type", "Sequence"}, {"pretokenizers", parts}};
}

size_t PreTokenizer::PieceLength(std::string_view text) const {
  switch (kind_) {
    case Kind::kDeepSeekV3:
      return DeepSeekV3Piece(*classes_, text);
    case Kind::kGpt2:
      return Gpt2Piece(*classes_, text);
    case Kind::kWhole:
      return text.size();
  }
  return text.size();
}

}  // namespace fathom
