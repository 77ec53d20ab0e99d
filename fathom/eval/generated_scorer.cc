#include "fathom/eval/generated_scorer.h"

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/data/shared_ids.h"
#include "fathom/infer/generate.h"
#include "fathom/tokenizer/char_class.h"

namespace fathom {
namespace {

constexpr int64_t kAtOnce = 16;  // answers that grow in the same passes

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool BeginsWith(std::string_view text, std::string_view lower) {
  return text.size() >= lower.size() && std::equal(lower.begin(), lower.end(), text.begin(), [](char a, char b) { return a == Lower(b); });
}

// The letter behind white space at the beginning of text; "" if there is none.
std::string LetterBehindSpace(std::string_view text) {
  const CharClassTable& table = CharClassTable::Get();
  while (!text.empty()) {
    const ClassifiedChar c = table.At(text.data(), text.data() + text.size());
    if ((c.classes & (kSpace | kNewline)) == 0) break;
    text.remove_prefix(c.length);
  }
  const char letter = text.empty() ? '?' : Lower(text[0]);
  return letter >= 'a' && letter <= 'd' ? std::string(1, text[0]) : "";
}

}  // namespace

std::string FindAnswerLetter(std::string_view text) {
  for (; !text.empty(); text.remove_prefix(1)) {
    for (const std::string_view before : {"answer:", "the answer is"}) {
      if (!BeginsWith(text, before)) continue;
      std::string letter = LetterBehindSpace(text.substr(before.size()));
      if (!letter.empty()) return letter;
    }
  }
  return "";
}

// MaxText makes as many steps as the sequence is longer than the longest prompt, whatever this prompt's length.
int64_t GeneratedScorer::NewTokens(int64_t prompt) const {
  return settings_.longest_sequence - (settings_.longest_prompt > 0 ? settings_.longest_prompt : prompt);
}

int64_t GeneratedScorer::Add(const AskedSubject& asked) {
  constexpr size_t kLetters = 4;  // A to D are all that MaxText looks for
  for (const ChoiceQuestion& q : asked.subject->questions) {
    if (q.choices.size() > kLetters)
      Throw(ErrorCode::kUsage, "scoring=generated finds the answers A to D, and a question has {} choices: take letters or continuations",
            q.choices.size());
  }
  const std::vector<std::string_view> views(asked.prompts.begin(), asked.prompts.end());
  Tokenised& t =
      tokenised_.emplace_back(&asked, IdsFromFirst(host_, [&] { return tokenizer_.EncodeBatch(views, {.add_bos = settings_.add_bos}); }));
  int64_t longest = 0;
  for (auto& ids : t.prompts) {
    if (settings_.longest_prompt > 0 && std::ssize(ids) > settings_.longest_prompt)
      ids.resize(static_cast<size_t>(settings_.longest_prompt));
    const int64_t size = std::ssize(ids), room = NewTokens(size);
    if (room < 1)
      Throw(ErrorCode::kUsage, "{}: a prompt of {} tokens leaves no room for an answer in max_target_length={}", asked.subject->name, size,
            settings_.longest_sequence);
    longest = std::max(longest, size + room);
  }
  return longest;
}

void GeneratedScorer::Start(const MappedModel& model, bool by_row) { engine_.emplace(model, kAtOnce, by_row); }

std::vector<Json> GeneratedScorer::Score(size_t added, size_t begin, size_t end) {
  const Tokenised& t = tokenised_[added];
  std::vector<Request> requests;
  std::vector<std::string> texts(t.asked->prompts.begin() + static_cast<std::ptrdiff_t>(begin),
                                 t.asked->prompts.begin() + static_cast<std::ptrdiff_t>(end)),
      written(end - begin);
  for (size_t q = begin; q < end; ++q) {
    const auto& ids = t.prompts[q];
    requests.push_back({ids, FindAnswerLetter(t.asked->prompts[q]).empty() ? NewTokens(std::ssize(ids)) : 0});
  }
  GenerateEvents events;
  events.text = [&](size_t i, std::string_view piece) { texts[i] += piece; };
  events.suffices = [&](size_t i) { return !FindAnswerLetter(texts[i]).empty(); };
  events.done = [&](size_t i, const GenerateResult& r) { written[i] = r.text; };
  GenerateAll(*engine_, &tokenizer_, requests, {}, kAtOnce, events);
  std::vector<Json> rows;
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string letter = FindAnswerLetter(texts[i]), answer = ChoiceLetter(t.asked->subject->questions[begin + i].answer);
    rows.push_back(
        {{"text", written[i]}, {"prediction", letter.empty() ? Json() : Json(letter)}, {"answer", answer}, {"correct", letter == answer}});
  }
  return rows;
}

}  // namespace fathom
