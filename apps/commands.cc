#include "apps/command.h"

namespace fathom {

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands = {
      TrainCommand(),       DecodeCommand(),         ConvertCommand(),        CheckFilesCommand(),      CheckGoldenCommand(),
      CheckLogitsCommand(), EvalPerplexityCommand(), TokenizerTrainCommand(), TokenizerEncodeCommand(), TokenizerDecodeCommand(),
      PlanCommand(),        BenchCommand(),          InspectCommand(),        ConfigCommand(),
  };
  return commands;
}

}  // namespace fathom
