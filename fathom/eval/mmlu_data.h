// MMLU on disk: DIR/test/<subject>_test.csv and DIR/dev/<subject>_dev.csv, with the header question,choice0..3,answer and answers 0 to 3,
// or as hendrycks/test has them, without header and with answers A to D; where a subject has no such file, Parquet (mmlu_parquet.h).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "fathom/eval/choice_question.h"

namespace fathom {

struct MmluDataOptions {
  std::filesystem::path dir;
  std::vector<std::string> subjects;  // by name, as ChooseMmluSubjects gives them
  int64_t examples = 0;               // answered questions that are needed, from dev
  int64_t limit = 0;                  // of a subject's questions only the first are asked; 0: all
};

// Every file is read whole, whatever the limit. Throws Error(kInput), naming file and line: no such folder or file, no question, a row
// that has not six fields, an answer that is none, fewer examples than needed.
std::vector<ChoiceSubject> ReadMmlu(const MmluDataOptions& options);

}  // namespace fathom
