// From questions to rows and scores: prompts, an earlier run's rows, passes, and what is written.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/eval/choice_results.h"
#include "fathom/eval/choice_scorer.h"
#include "fathom/eval/samples_file.h"
#include "fathom/parallel/comm.h"

namespace fathom {

// The others of several processes that divide the questions among themselves.
struct ChoiceRanks {
  int64_t rank = 0, count = 1;
  // What each of them says, in their order; called by all.
  std::function<std::vector<std::string>(const std::string&)> gather;
  bool writes = true;  // files; one of all processes does
  Comm host;           // those of this machine, of which the first tokenises for all
};

struct ChoiceRun {
  ChoiceSettings settings;
  Json identity;             // all that tells this run's numbers from another's besides prompts and answers: model, tokenizer, flags
  std::string samples_path;  // where rows are kept; empty: nowhere
  std::string prompts_path;  // where the prompts are written; empty: nowhere
  // Gets how many questions are done, and the share of right answers among them.
  std::function<void(int64_t, double)> progress;
  ChoiceRanks ranks = {};
};

class ChoiceEvaluation {
 public:
  // Makes the prompts and reads the rows that an earlier run has left. Everything that is given outlives this. Throws Error as ReadSamples
  // and ChoiceScorer::Add do.
  ChoiceEvaluation(const std::vector<ChoiceSubject>& subjects, const Tokenizer& tokenizer, const ChoiceRun& run);

  int64_t questions() const { return questions_; }
  int64_t done() const { return done_; }
  // The longest sequence that is left to compute; 0: nothing is.
  int64_t Capacity() const { return capacity_; }
  // Writes prompts and kept rows, computes the others; the model's capacity is that of Capacity(). Nothing needs a model if nothing is
  // left. Throws Error(kInput) as PromptScorer does. Of several processes each computes some, and all get the scores of all.
  std::vector<SubjectScore> Run(const MappedModel* model, bool by_row);

 private:
  // Questions [begin, end) of a subject: computed together, in one list of prompts, and written together.
  struct Unit {
    size_t subject, begin, end;
    size_t added;                   // the subject's place in the scorer, if the unit is computed
    std::vector<const Json*> kept;  // the rows, if an earlier run left all
  };
  std::string HashOf(const QuestionKey& key) const;
  void Divide();
  std::vector<Json> Compute(const Unit& unit);
  // Of several processes each computes one of the units, in their order.
  void ComputeRound(std::span<const Unit* const> round, SamplesFile& samples);
  void Count(size_t subject, const Json& row);
  void WritePrompts() const;

  const std::vector<ChoiceSubject>& subjects_;
  const ChoiceRun& run_;
  std::vector<AskedSubject> asked_;
  SampleRows earlier_;
  std::unique_ptr<ChoiceScorer> scorer_;
  std::vector<Unit> units_;
  int64_t questions_ = 0, done_ = 0, right_ = 0, capacity_ = 0;
  std::vector<SubjectScore> scores_;
};

}  // namespace fathom
