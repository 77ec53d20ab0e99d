#include "apps/command.h"
#include "fathom/config/model_from_flags.h"

namespace fathom {

std::vector<std::string> WithModelFlags(std::vector<std::string> flags) {
  const std::vector<std::string> model = ModelFlags();
  flags.insert(flags.end(), model.begin(), model.end());
  return flags;
}

std::vector<std::string> WithMeshFlags(std::vector<std::string> flags) {
  const std::vector<std::string> axes = MeshFlags();
  flags.insert(flags.end(), axes.begin(), axes.end());
  return flags;
}

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands = {
      TrainCommand(),
      SftCommand(),
      DecodeCommand(),
      ConvertCommand(),
      CheckFilesCommand(),
      CheckGoldenCommand(),
      CheckLogitsCommand(),
      CheckCompareCommand(),
      EvalPerplexityCommand(),
      EvalMmluCommand(),
      EvalMultipleChoiceCommand(),
      TokenizerTrainCommand(),
      TokenizerEncodeCommand(),
      TokenizerDecodeCommand(),
      TokenizerChatCommand(),
      ReportCommand(),
      PlanCommand(),
      BenchCommand(),
      InspectCommand(),
      ConfigCommand(),
  };
  return commands;
}

}  // namespace fathom
