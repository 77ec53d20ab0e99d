#include "fathom/eval/choice_eval.h"

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/checkpoint/safetensors/manifest.h"

namespace fathom {
namespace {

// Enough to fill passes; answers that are written end one by one, and new ones take their place.
size_t UnitQuestions(ChoiceScoring scoring) { return scoring == ChoiceScoring::kGenerated ? 64 : 16; }

void Update(Hasher& hasher, std::string_view text) {
  const uint64_t length = text.size();
  hasher.Update(std::as_bytes(std::span(&length, 1)));
  hasher.Update(std::as_bytes(std::span(text)));
}

}  // namespace

ChoiceEvaluation::ChoiceEvaluation(const std::vector<ChoiceSubject>& subjects, const Tokenizer& tokenizer, const ChoiceRun& run)
    : subjects_(subjects), run_(run), scorer_(MakeChoiceScorer(run.settings, tokenizer, run.ranks.host)) {
  for (const ChoiceSubject& s : subjects) {
    asked_.push_back(Ask(s, run.settings));
    questions_ += std::ssize(s.questions);
    scores_.push_back({.name = s.name, .available = s.available});
  }
  earlier_ = ReadSamples(run.samples_path, [this](const QuestionKey& key) { return HashOf(key); });
  Divide();
}

// Of everything that a row depends on; "" for a question that is not asked.
std::string ChoiceEvaluation::HashOf(const QuestionKey& key) const {
  const auto found = std::ranges::find(subjects_, key.first, &ChoiceSubject::name);
  if (found == subjects_.end() || key.second < 0 || key.second >= std::ssize(found->questions)) return "";
  const auto index = static_cast<size_t>(key.second);
  const ChoiceQuestion& q = found->questions[index];
  Hasher hasher;
  Update(hasher, run_.identity.dump(-1, ' ', true, Json::error_handler_t::replace));
  Update(hasher, asked_[static_cast<size_t>(found - subjects_.begin())].prompts[index]);
  for (const std::string& choice : q.choices) Update(hasher, choice);
  Update(hasher, ChoiceLetter(q.answer));
  return hasher.Hex();
}

// Units of which every row is there are kept; the subjects of the others are tokenised.
void ChoiceEvaluation::Divide() {
  size_t added = 0;
  const size_t most = UnitQuestions(run_.settings.scoring);
  for (size_t s = 0; s < subjects_.size(); ++s) {
    bool is_added = false;
    for (size_t begin = 0; begin < subjects_[s].questions.size(); begin += most) {
      Unit unit{s, begin, std::min(begin + most, subjects_[s].questions.size()), added, {}};
      for (size_t q = begin; q < unit.end; ++q) {
        const auto row = earlier_.find({subjects_[s].name, static_cast<int64_t>(q)});
        if (row != earlier_.end()) unit.kept.push_back(&row->second);
      }
      if (unit.kept.size() < unit.end - begin) {
        unit.kept.clear();
        if (!is_added) capacity_ = std::max(capacity_, scorer_->Add(asked_[s]));
        is_added = true;
      }
      done_ += std::ssize(unit.kept);
      units_.push_back(std::move(unit));
    }
    added += is_added ? 1 : 0;
  }
}

void ChoiceEvaluation::WritePrompts() const {
  if (run_.prompts_path.empty() || !run_.ranks.writes) return;
  std::string text;
  for (const AskedSubject& asked : asked_) {
    for (size_t i = 0; i < asked.prompts.size(); ++i)
      text += Json{{"subject", asked.subject->name}, {"index", i}, {"prompt", asked.prompts[i]}}.dump(-1, ' ', false,
                                                                                                      Json::error_handler_t::replace) +
              "\n";
  }
  WriteOutput(run_.prompts_path, text);
}

void ChoiceEvaluation::Count(size_t subject, const Json& row) {
  SubjectScore& score = scores_[subject];
  const bool correct = row["correct"].get<bool>();
  ++score.asked;
  score.correct += correct ? 1 : 0;
  right_ += correct ? 1 : 0;
  const auto norm = row.find("correct_norm");
  if (norm != row.end()) score.correct_norm = score.correct_norm.value_or(0) + (norm->get<bool>() ? 1 : 0);
}

std::vector<Json> ChoiceEvaluation::Compute(const Unit& unit) {
  const std::string& subject = subjects_[unit.subject].name;
  std::vector<Json> rows = scorer_->Score(unit.added, unit.begin, unit.end);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto index = static_cast<int64_t>(unit.begin + i);
    rows[i]["subject"] = subject;
    rows[i]["index"] = index;
    rows[i]["hash"] = HashOf({subject, index});
  }
  return rows;
}

void ChoiceEvaluation::ComputeRound(std::span<const Unit* const> round, SamplesFile& samples) {
  const ChoiceRanks& ranks = run_.ranks;
  const auto me = static_cast<size_t>(ranks.rank);
  std::vector<Json> all(round.size());
  if (me < round.size()) all[me] = Compute(*round[me]);
  if (ranks.count > 1) {
    const std::string mine = me < round.size() ? all[me].dump(-1, ' ', false, Json::error_handler_t::replace) : "";
    const std::vector<std::string> texts = ranks.gather(mine);
    for (size_t i = 0; i < round.size(); ++i) all[i] = Json::parse(texts[i]);
  }
  for (size_t i = 0; i < round.size(); ++i) {
    const auto rows = all[i].get<std::vector<Json>>();
    for (const Json& row : rows) Count(round[i]->subject, row);
    samples.Add(rows);
    done_ += std::ssize(rows);
  }
}

std::vector<SubjectScore> ChoiceEvaluation::Run(const MappedModel* model, bool by_row) {
  WritePrompts();
  std::vector<const Json*> kept;
  for (const Unit& unit : units_) {
    kept.insert(kept.end(), unit.kept.begin(), unit.kept.end());
    for (const Json* row : unit.kept) Count(unit.subject, *row);
  }
  std::vector<const Unit*> left;
  for (const Unit& unit : units_) {
    if (unit.kept.empty()) left.push_back(&unit);
  }
  SamplesFile samples(run_.ranks.writes ? run_.samples_path : "", kept);
  if (model != nullptr) scorer_->Start(*model, by_row);
  const auto each = static_cast<size_t>(run_.ranks.count);
  for (size_t first = 0; first < left.size(); first += each) {
    ComputeRound(std::span(left).subspan(first, std::min(each, left.size() - first)), samples);
    if (run_.progress) run_.progress(done_, static_cast<double>(right_) / static_cast<double>(done_));
  }
  samples.Finish();
  return scores_;
}

}  // namespace fathom
