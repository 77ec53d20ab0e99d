#include "fathom/tokenizer/pre_tokenizer.h"

#include <utility>

#include "fathom/base/error.h"
#include "fathom/tokenizer/split_ranges.h"

namespace fathom {
namespace {

struct KnownSplit {
  std::string pattern;
  SplitStage stage;
};

KnownSplit Run(std::string pattern, uint16_t classes, bool after_space) {
  return {std::move(pattern), {.kind = SplitKind::kRun, .classes = classes, .after_space = after_space}};
}

KnownSplit V3Numbers() { return {R"(\p{N}{1,3})", {.kind = SplitKind::kRun, .classes = kNumber, .most = 3}}; }
KnownSplit V3Cjk() { return Run(ClassPattern(kV3CjkRanges) + "+", kV3Cjk, false); }
KnownSplit V3Words() {
  return {
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
      "\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
      {.kind = SplitKind::kDeepSeekV3Words}};
}

// Every Split that is supported: those of DeepSeek-V3 and later, of DeepSeek-LLM and V2, and of DeepSeek-Coder.
std::vector<KnownSplit> KnownSplits() {
  return {V3Numbers(),
          V3Cjk(),
          V3Words(),
          {ClassPattern(kNewlineRanges), {.kind = SplitKind::kRun, .classes = kNewline, .most = 1}},
          Run("\\s?" + ClassPattern(kV2LetterRanges) + "+", kV2Letter, true),
          Run("\\s?" + ClassPattern(kV2SignRanges) + "+", kV2Sign, true),
          {R"(\s+$)", {.kind = SplitKind::kTrailingSpace}},
          Run(ClassPattern(kV2WideRanges) + "+", kV2Wide, false),
          Run(R"(\s?\p{L}+)", kLetter, true),
          Run(R"(\s?\p{P}+)", kPunctuation, true)};
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
  Throw(ErrorCode::kInput, "{}: pre_tokenizer: {} is not supported; known are the Splits of DeepSeek's tokenizers, Digits and ByteLevel",
        where, what.size() > 120 ? ToValidUtf8(what.substr(0, 120)) + "..." : what);
}

SplitStage SplitOf(const Json& entry, const std::string& where) {
  const Json& found = Field(Field(entry, "pattern", where), "Regex", where);
  if (Field(entry, "behavior", where) != "Isolated" || IsTrue(entry, "invert", false)) Unknown("a Split that is not \"Isolated\"", where);
  for (const KnownSplit& known : KnownSplits()) {
    if (found == known.pattern) return known.stage;
  }
  Unknown("the pattern " + found.dump(), where);
}

// Any step but the last.
SplitStage StageOf(const Json& entry, const std::string& where) {
  const Json& type = Field(entry, "type", where);
  if (type == "Split") return SplitOf(entry, where);
  if (type != "Digits") Unknown(type.dump() + " before the last step", where);
  SplitStage digits{.kind = SplitKind::kRun, .classes = kDigit};
  if (IsTrue(entry, "individual_digits", false)) digits.most = 1;
  return digits;
}

// The last step, ByteLevel: whether it cuts with its own pattern.
bool ByteLevelCuts(const Json& entry, const std::string& where) {
  const Json& type = Field(entry, "type", where);
  if (type != "ByteLevel") Unknown(type.dump() + " as the last step", where);
  if (IsTrue(entry, "add_prefix_space", true)) Unknown("add_prefix_space", where);
  return IsTrue(entry, "use_regex", true);
}

}  // namespace

PreTokenizer PreTokenizer::FromJson(const Json& entry, const std::string& where) {
  const bool sequence = Field(entry, "type", where) == "Sequence";
  const Json steps = sequence ? Field(entry, "pretokenizers", where) : Json::array({entry});
  if (!steps.is_array() || steps.empty()) Unknown("an empty sequence", where);
  if (steps.size() > kMaxStages) Unknown("a sequence of " + std::to_string(steps.size()), where);
  PreTokenizer out;
  out.json_ = entry;
  for (size_t i = 0; i + 1 < steps.size(); ++i) out.stages_.push_back(StageOf(steps[i], where));
  if (ByteLevelCuts(steps.back(), where)) out.stages_.push_back({.kind = SplitKind::kGpt2Words});
  return out;
}

PreTokenizer PreTokenizer::DeepSeekV3() {
  Json steps = Json::array();
  for (const KnownSplit& split : {V3Numbers(), V3Cjk(), V3Words()}) {
    steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", split.pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
  return FromJson({{"type", "Sequence"}, {"pretokenizers", steps}}, "DeepSeek-V3");
}

PieceCursor::PieceCursor(const PreTokenizer& pre_tokenizer, std::string_view text)
    : stages_(pre_tokenizer.stages()), classes_(CharClassTable::Get()), text_(text), ends_{} {
  ends_[0] = text.size();
}

std::string_view PieceCursor::Next() {
  if (at_ == text_.size()) return {};
  size_t i = stages_.size();
  while (i > 0 && ends_[i] == at_) --i;
  for (; i < stages_.size(); ++i) ends_[i + 1] = at_ + FirstPiece(stages_[i], classes_, text_.substr(at_, ends_[i] - at_));
  const size_t begin = std::exchange(at_, ends_[i]);
  return text_.substr(begin, at_ - begin);
}

}  // namespace fathom
