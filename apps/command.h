// A command of the fathom program: `fathom NAME [config.yml] [key=value ...]`.
#pragma once

#include <string>
#include <vector>

#include "fathom/config/run_config.h"
#include "fathom/parallel/mesh.h"

namespace fathom {

struct Command {
  std::string name;                     // "train"; two words for a sub-command: "check golden"
  std::string summary;                  // one line for `fathom --help`
  std::vector<std::string> flags;       // every flag that it reads beyond the common ones (threads, log_level, json): what --help lists
  int (*run)(const RunConfig& config);  // returns the exit code; throws Error
  std::string operands = "";            // bare words that it takes (RunConfig::words), for --help: "DIR"; empty: a bare word is an error
  std::string defaults = "";            // a yml of configs/ with other defaults than base.yml's
  int (*run_rank)(const RunConfig& config, const Mesh& mesh) = nullptr;  // the same as one of several ranks; null: not offered
};

// Every command, in the order of --help. One line per command in apps/commands.cc.
const std::vector<Command>& Commands();

// The command's own flags, then those of the ranks' axes.
std::vector<std::string> WithMeshFlags(std::vector<std::string> flags);
// The command's own flags, then those that describe a model.
std::vector<std::string> WithModelFlags(std::vector<std::string> flags);

// apps/<name>.cc defines each of these.
Command TrainCommand();
Command SftCommand();
Command DecodeCommand();
Command CheckLogitsCommand();
Command CheckGoldenCommand();
Command CheckFilesCommand();
Command CheckCompareCommand();
Command ConvertCommand();
Command TokenizerTrainCommand();
Command TokenizerEncodeCommand();
Command TokenizerDecodeCommand();
Command TokenizerChatCommand();
Command InspectCommand();
Command ConfigCommand();
Command PlanCommand();
Command ReportCommand();
Command BenchCommand();
Command EvalPerplexityCommand();
Command EvalMmluCommand();
Command EvalMultipleChoiceCommand();

}  // namespace fathom
