// What `eval mmlu` and `eval multiple_choice` share: the model, the flags of scoring, an earlier run's rows.
#pragma once

#include <string>
#include <vector>

#include "fathom/config/run_config.h"
#include "fathom/eval/choice_results.h"
#include "fathom/eval/choice_scorer.h"
#include "fathom/parallel/mesh.h"

namespace fathom {

// The flags that EvaluateChoices reads.
std::vector<std::string> ChoiceFlags();

// scoring=, prompt_style= and what belongs to each; add_bos is the model's tokenizer's, later. Throws Error(kUsage): flags that don't go
// together.
ChoiceSettings ReadChoiceSettings(const RunConfig& config);

// num_shots=, `otherwise` unless given. Throws Error(kUsage): examples with scoring=generated, whose expression would find their answers.
int64_t ReadShots(const RunConfig& config, ChoiceScoring scoring, int64_t otherwise);

// Asks the model of load_parameters_path= everything that an earlier run has not asked it. command: for messages, "eval mmlu". Ranks along
// data and fsdp divide the questions, those along expert and tensor the model; each gets all scores.
std::vector<SubjectScore> EvaluateChoices(const RunConfig& config, const std::string& command, const std::vector<ChoiceSubject>& subjects,
                                          const ChoiceSettings& settings, const Mesh& mesh);

// The table on standard output, unless one of the files goes there; then json=: the results, with the settings under "config". By the first
// rank.
void ReportChoices(const RunConfig& config, const std::string& table, Json json, const Mesh& mesh);

}  // namespace fathom
