#include "apps/command.h"

namespace fathom {

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands = {
      TrainCommand(),
      DecodeCommand(),
      CheckGoldenCommand(),
      CheckLogitsCommand(),
      TokenizerTrainCommand(),
      TokenizerEncodeCommand(),
      TokenizerDecodeCommand(),
      ConfigCommand(),
  };
  return commands;
}

}  // namespace fathom
