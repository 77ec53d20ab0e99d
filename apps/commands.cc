#include "apps/command.h"

namespace fathom {

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands = {
      ConfigCommand(),
  };
  return commands;
}

}  // namespace fathom
