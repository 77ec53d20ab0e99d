// MMLU as `hf download cais/mmlu` leaves it: DIR/<subject>/test-*.parquet and dev-*.parquet, or all subjects together in DIR/all.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "fathom/eval/choice_question.h"

namespace fathom {

// The files of a subject's split ("test", "dev"), by name; none if there are neither its own nor those of all.
std::vector<std::filesystem::path> FindMmluParquet(const std::filesystem::path& dir, const std::string& subject, const std::string& split);

// The subject's questions in such files: columns question, choices, answer and, in those of all, subject. Throws Error(kInput), with file
// and row: not Parquet, damaged, no question with four choices and an answer from 0 to 3.
std::vector<ChoiceQuestion> ReadMmluParquet(const std::vector<std::filesystem::path>& files, const std::string& subject);

}  // namespace fathom
