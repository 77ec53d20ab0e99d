// fathom eval mmlu: 57 subjects, four choices each.
#include "apps/command.h"
#include "apps/eval_choices.h"
#include "fathom/base/error.h"
#include "fathom/eval/mmlu_data.h"
#include "fathom/eval/mmlu_subjects.h"

namespace fathom {
namespace {

constexpr int64_t kMostShots = 5;  // dev has no more

int RunRank(const RunConfig& config, const Mesh& mesh) {
  const ChoiceSettings settings = ReadChoiceSettings(config);
  const int64_t shots = ReadShots(config, settings.scoring, config.Int("num_shots"));
  if (shots > kMostShots) Throw(ErrorCode::kUsage, "num_shots={}: MMLU has {} examples for a subject", shots, kMostShots);
  if (config.String("data_dir").empty()) Throw(ErrorCode::kUsage, "eval mmlu needs data_dir= (a folder with test/ and dev/)");
  const auto subjects = ReadMmlu({.dir = config.String("data_dir"),
                                  .subjects = ChooseMmluSubjects(config.Strings("subjects")),
                                  .examples = shots,
                                  .limit = config.Int("limit")});
  const auto scores = EvaluateChoices(config, "eval mmlu", subjects, settings, mesh);
  ReportChoices(config, MmluTable(scores), MmluJson(scores, shots), mesh);
  return 0;
}

int Run(const RunConfig& config) { return RunRank(config, {}); }

}  // namespace

Command EvalMmluCommand() {
  Command command{.name = "eval mmlu",
                  .summary = "accuracy on MMLU: by subject, subcategory, category and overall",
                  .flags = ChoiceFlags(),
                  .run = Run,
                  .run_rank = RunRank};
  command.flags.insert(command.flags.end(), {"data_dir", "num_shots", "subjects"});
  return command;
}

}  // namespace fathom
