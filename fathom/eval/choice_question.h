// Questions with choices: MMLU's, or a user's own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fathom {

struct ChoiceQuestion {
  std::string question;
  std::vector<std::string> choices;  // 2 to 26
  int64_t answer;                    // the right one
};

// What shares its examples: a subject of MMLU, or a whole test.
struct ChoiceSubject {
  std::string name;                       // "high_school_physics"; empty: the prompts name none
  std::vector<ChoiceQuestion> examples;   // answered ones, which prompts may show
  std::vector<ChoiceQuestion> questions;  // that are asked
  int64_t available = 0;                  // questions that there are, asked or not
};

inline constexpr int64_t kMostChoices = 26;
// "A" for the first choice.
inline std::string ChoiceLetter(int64_t choice) { return std::string(1, static_cast<char>('A' + choice)); }

}  // namespace fathom
