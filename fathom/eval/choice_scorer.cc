#include "fathom/eval/choice_scorer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "fathom/base/error.h"
#include "fathom/data/shared_ids.h"
#include "fathom/eval/generated_scorer.h"
#include "fathom/infer/prompt_scorer.h"

namespace fathom {
namespace {

int64_t IndexOfLargest(std::span<const double> values) { return std::ranges::max_element(values) - values.begin(); }  // the first of equals

// What is scored by logits behind prompts.
class LogitScorer : public ChoiceScorer {
 public:
  LogitScorer(const ChoiceSettings& settings, const Tokenizer& tokenizer, const Comm& host)
      : tokenizer_(tokenizer), host_(host), add_bos_(settings.add_bos) {}

  int64_t Add(const AskedSubject& asked) final {
    Tokenised& t = tokenised_.emplace_back(&asked);
    Tokenise(t);
    int64_t longest = 0;
    for (const ScoredPrompt& p : t.prompts) longest = std::max(longest, std::ssize(p.ids));
    return longest;
  }

  void Start(const MappedModel& model, bool by_row) final { scorer_.emplace(model, by_row); }

  std::vector<Json> Score(size_t added, size_t begin, size_t end) final {
    const Tokenised& t = tokenised_[added];
    const std::span<const int32_t> beginning(t.prompts.front().ids);
    scorer_->SetBeginning(beginning.first(static_cast<size_t>(SharedLength(t.prompts))));
    const size_t first = t.first[begin];
    values_.assign(t.first[end] - first, {});
    scorer_->Score(std::span(t.prompts).subspan(first, values_.size()),
                   [&](size_t prompt, int64_t k, std::span<const float> logits) { Take(t, first + prompt, k, logits, values_[prompt]); });
    std::vector<Json> rows;
    for (size_t q = begin; q < end; ++q)
      rows.push_back(Row(t.asked->subject->questions[q], std::span(values_).subspan(t.first[q] - first, t.first[q + 1] - t.first[q])));
    return rows;
  }

 protected:
  struct Tokenised {
    explicit Tokenised(const AskedSubject* a) : asked(a), first(a->prompts.size() + 1) {}
    const AskedSubject* asked;
    std::vector<ScoredPrompt> prompts;
    std::vector<size_t> first;  // of each question's prompts, and the end
    std::vector<int32_t> last;  // continuations: the token that follows each prompt
  };
  using Values = std::vector<double>;

  IdLists Encode(const std::vector<std::string>& texts) const {
    const std::vector<std::string_view> views(texts.begin(), texts.end());
    return IdsFromFirst(host_, [&] { return tokenizer_.EncodeBatch(views, {.add_bos = add_bos_}); });
  }
  // Fills prompts and first.
  virtual void Tokenise(Tokenised& t) const = 0;
  // Keeps of the logits behind a prompt's k-th scored token what counts.
  virtual void Take(const Tokenised& t, size_t prompt, int64_t k, std::span<const float> logits, Values& values) const = 0;
  // From the values of a question's prompts.
  virtual Json Row(const ChoiceQuestion& question, std::span<const Values> values) const = 0;

  const Tokenizer& tokenizer_;

 private:
  Comm host_;
  bool add_bos_;
  std::vector<Tokenised> tokenised_;
  std::optional<PromptScorer> scorer_;
  std::vector<Values> values_;
};

// Where a blank and a letter are more than one token, those before the last belong to the prompt.
class LetterScorer final : public LogitScorer {
 public:
  LetterScorer(const ChoiceSettings& settings, const Tokenizer& tokenizer, const Comm& host) : LogitScorer(settings, tokenizer, host) {
    for (int64_t i = 0; i < kMostChoices; ++i) {
      auto ids = tokenizer.Encode(fmt::format(" {}", ChoiceLetter(i)));
      letters_.push_back(ids.back());
      ids.pop_back();
      leads_.push_back(std::move(ids));
    }
  }

 private:
  // Throws unless the letters differ in one last token.
  void CheckLetters(size_t count) const {
    for (size_t i = 1; i < count; ++i) {
      if (leads_[i] == leads_[0] && std::count(letters_.begin(), letters_.begin() + static_cast<std::ptrdiff_t>(i), letters_[i]) == 0)
        continue;
      Throw(ErrorCode::kInput,
            "this tokenizer cuts \" A\" and \" {}\" differently, so that no logits tell them apart; try scoring=continuations",
            ChoiceLetter(static_cast<int64_t>(i)));
    }
  }

  void Tokenise(Tokenised& t) const override {
    for (const ChoiceQuestion& q : t.asked->subject->questions) CheckLetters(q.choices.size());
    for (auto& ids : Encode(t.asked->prompts)) {
      ids.insert(ids.end(), leads_[0].begin(), leads_[0].end());
      t.prompts.push_back({std::move(ids), 1});
    }
    std::iota(t.first.begin(), t.first.end(), size_t{0});
  }

  void Take(const Tokenised& t, size_t prompt, int64_t, std::span<const float> logits, Values& values) const override {
    for (size_t i = 0; i < t.asked->subject->questions[prompt].choices.size(); ++i)
      values.push_back(logits[static_cast<size_t>(letters_[i])]);
  }

  Json Row(const ChoiceQuestion& question, std::span<const Values> values) const override {
    Json logits = Json::object();
    for (size_t i = 0; i < values[0].size(); ++i) logits[ChoiceLetter(static_cast<int64_t>(i))] = values[0][i];
    const int64_t best = IndexOfLargest(values[0]);
    return {{"logits", logits},
            {"prediction", ChoiceLetter(best)},
            {"answer", ChoiceLetter(question.answer)},
            {"correct", best == question.answer}};
  }

  std::vector<int32_t> letters_;             // the last token of each
  std::vector<std::vector<int32_t>> leads_;  // those before it
};

// log softmax(logits)[id].
double LogProbability(std::span<const float> logits, int32_t id) {
  const double most = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - most);
  return logits[static_cast<size_t>(id)] - most - std::log(sum);
}

int64_t Characters(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

// The sum of a choice's log probabilities, alone (acc) and per character (acc_norm), as lm-evaluation-harness has them.
class ContinuationScorer final : public LogitScorer {
 public:
  using LogitScorer::LogitScorer;

 private:
  // A prompt for each choice: all of its tokens but the last, whose logits nobody asks for.
  void Tokenise(Tokenised& t) const override {
    std::vector<std::string> whole;
    for (size_t q = 0; q < t.asked->prompts.size(); ++q) {
      for (const std::string& choice : t.asked->subject->questions[q].choices) whole.push_back(t.asked->prompts[q] + " " + choice);
    }
    const auto prompts = Encode(t.asked->prompts);
    auto sequences = Encode(whole);
    for (size_t q = 0, at = 0; q < prompts.size(); ++q) {
      t.first[q] = at;
      for (size_t i = 0; i < t.asked->subject->questions[q].choices.size(); ++i, ++at) {
        std::vector<int32_t>& ids = sequences[at];
        const int64_t shown = std::min(std::ssize(prompts[q]), std::ssize(ids) - 1);
        t.last.push_back(ids.back());
        ids.pop_back();
        const int64_t scored = std::ssize(ids) + 1 - shown;
        t.prompts.push_back({std::move(ids), scored});
      }
    }
    t.first.back() = t.prompts.size();
  }

  void Take(const Tokenised& t, size_t prompt, int64_t k, std::span<const float> logits, Values& values) const override {
    const ScoredPrompt& p = t.prompts[prompt];
    const auto next = static_cast<size_t>(p.Shareable() + k + 1);
    values.resize(1);
    values[0] += LogProbability(logits, next < p.ids.size() ? p.ids[next] : t.last[prompt]);
  }

  Json Row(const ChoiceQuestion& question, std::span<const Values> values) const override {
    std::vector<double> sums, normed;
    for (size_t i = 0; i < values.size(); ++i) {
      sums.push_back(values[i][0]);
      normed.push_back(values[i][0] / static_cast<double>(std::max<int64_t>(1, Characters(question.choices[i]))));
    }
    const int64_t best = IndexOfLargest(sums), best_normed = IndexOfLargest(normed);
    return {{"log_likelihoods", sums},
            {"prediction", ChoiceLetter(best)},
            {"prediction_norm", ChoiceLetter(best_normed)},
            {"answer", ChoiceLetter(question.answer)},
            {"correct", best == question.answer},
            {"correct_norm", best_normed == question.answer}};
  }
};

}  // namespace

AskedSubject Ask(const ChoiceSubject& subject, const ChoiceSettings& settings) {
  AskedSubject asked{&subject, {}};
  for (const ChoiceQuestion& q : subject.questions) {
    switch (settings.scoring) {
      case ChoiceScoring::kLetters:
        asked.prompts.push_back(LetterPrompt(subject, q, settings.style));
        break;
      case ChoiceScoring::kContinuations:
        asked.prompts.push_back(ContinuationPrompt(subject, q));
        break;
      case ChoiceScoring::kGenerated:
        asked.prompts.push_back(TemplatePrompt(settings.prompt_template, subject, q));
        break;
    }
  }
  return asked;
}

std::unique_ptr<ChoiceScorer> MakeChoiceScorer(const ChoiceSettings& settings, const Tokenizer& tokenizer, const Comm& host) {
  if (settings.scoring == ChoiceScoring::kGenerated) return std::make_unique<GeneratedScorer>(settings, tokenizer, host);
  if (settings.scoring == ChoiceScoring::kContinuations) return std::make_unique<ContinuationScorer>(settings, tokenizer, host);
  return std::make_unique<LetterScorer>(settings, tokenizer, host);
}

}  // namespace fathom
