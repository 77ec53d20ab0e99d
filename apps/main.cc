// fathom COMMAND [config.yml] [key=value ...]
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <new>
#include <set>
#include <system_error>

#include "apps/check_outputs.h"
#include "apps/command.h"
#include "apps/launch.h"
#include "apps/ranks.h"
#include "apps/readable_checkpoint.h"
#include "apps/same_flags.h"
#include "apps/short_spins.h"
#include "fathom/base/cut_files.h"
#include "fathom/base/env.h"
#include "fathom/base/error.h"
#include "fathom/base/log.h"
#include "fathom/base/nearest.h"
#include "fathom/base/system_error.h"
#include "fathom/base/threads.h"
#include "fathom/config/flag_table.h"
#include "fathom/config/flag_text.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/config/run_rules.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/machine/cpu_quota.h"
#include "fathom/machine/free_memory.h"
#include "fathom/machine/numa.h"

namespace fathom {
namespace {

const std::vector<std::string>& CommonFlags() {
  static const std::vector<std::string> flags = {"threads", "numa", "log_level", "json", "ranks", "launcher", "hang_seconds"};
  return flags;
}

// Flags that Resolve itself reads, so they have an effect on every command.
const std::vector<std::string>& ResolvedFlags() {
  static const std::vector<std::string> flags = {"model_name", "override_model_config", "base_config"};
  return flags;
}

void PrintExitCodes() {
  fmt::print(
      "\nexit codes: 0 done, 1 the work failed (a loss became NaN, a check missed its bar), 2 bad usage, 3 bad input,\n"
      "4 out of memory or disk, 128 + n stopped by signal n (130 Ctrl-C, 143 SIGTERM; training has saved by then).\n");
}

void PrintUsage() {
  fmt::print("fathom {}: trains, converts, checks and decodes the DeepSeek family on CPUs\n\n", FATHOM_VERSION);
  fmt::print("usage: fathom COMMAND [config.yml] [key=value ...]\n\ncommands:\n");
  for (const Command& command : Commands()) fmt::print("  {:<20} {}\n", command.name, command.summary);
  fmt::print("\nfathom COMMAND --help lists the command's flags; --version prints the version.\n");
  PrintExitCodes();
}

// With the values that stand where nothing else is said.
void PrintFlags(const std::vector<std::string>& names, const RunConfig& defaults) {
  for (const std::string& name : names) {
    const FlagSpec& flag = FindFlag(name, "help");
    const Flag& value = defaults.flags().at(name);
    const bool derived = value.source == "derived" || value.source.starts_with("environment");
    fmt::print("  {:<44} {}\n", fmt::format("{}={}", name, FormatFlag(derived ? flag.default_value : value.value)), flag.help);
  }
}

void PrintHelp(const Command& command) {
  fmt::print("fathom {}: {}\n\nusage: fathom {} {}{}[config.yml] [key=value ...]\n", command.name, command.summary, command.name,
             command.operands, command.operands.empty() ? "" : " ");
  const RunConfig defaults = RunConfig::Resolve({}, command.defaults);
  if (!command.flags.empty()) fmt::print("\nflags, with their defaults:\n");
  PrintFlags(command.flags, defaults);
  fmt::print("\nof every command:\n");
  PrintFlags(CommonFlags(), defaults);
  PrintExitCodes();
}

std::vector<std::string> Split(const std::string& name) {
  const size_t space = name.find(' ');
  return space == name.npos ? std::vector{name} : std::vector{name.substr(0, space), name.substr(space + 1)};
}

// The command that words begin with; null: none.
const Command* FindCommand(const std::vector<std::string>& words) {
  const auto found = std::ranges::find_if(Commands(), [&](const Command& command) {
    const auto parts = Split(command.name);
    return words.size() >= parts.size() && std::equal(parts.begin(), parts.end(), words.begin());
  });
  return found == Commands().end() ? nullptr : &*found;
}

// The commands of two words that begin with this one.
std::vector<std::string> Relatives(const std::string& word) {
  std::vector<std::string> names;
  for (const Command& command : Commands()) {
    if (Split(command.name)[0] == word) names.push_back(command.name);
  }
  return names;
}

// `fathom check --help`. False: no command begins so.
bool PrintGroupHelp(const std::string& word) {
  const auto names = Relatives(word);
  if (names.empty()) return false;
  fmt::print("usage: fathom {} ... [config.yml] [key=value ...]\n\ncommands:\n", word);
  for (const Command& command : Commands()) {
    if (std::ranges::count(names, command.name) > 0) fmt::print("  {:<20} {}\n", command.name, command.summary);
  }
  return true;
}

bool AsksForHelp(const std::vector<std::string>& words) {
  return std::ranges::any_of(words, [](const std::string& word) { return word == "--help" || word == "-h"; });
}

// MaxText's modules, by the end of their names, and the command that stands for each.
struct Module {
  std::string_view end, command;
};
constexpr Module kModules[] = {{".pre_train.train", "train"},
                               {".sft.train_sft", "sft"},
                               {".sft.train_sft_native", "sft"},
                               {".train_compile", "plan train"},
                               {".decode", "decode"},
                               {".deepseek_dequantize", "convert"},
                               {".convert_deepseek_family_ckpt", "convert"},
                               {".convert_deepseek_family_unscanned_ckpt", "convert"},
                               {".to_maxtext", "convert"},
                               {".to_huggingface", "convert"},
                               {".forward_pass_logit_checker", "check logits"},
                               {".inspect_checkpoint", "inspect"}};

// A command that was pasted from MaxText's guide as it stands.
void RefusePython(const std::vector<std::string>& words) {
  const std::string program = words[0].substr(words[0].rfind('/') + 1);
  if (!program.starts_with("python")) return;
  const std::string module = words.size() > 2 && words[1] == "-m" ? words[2] : "";
  const auto known = std::ranges::find_if(kModules, [&](const Module& x) { return module.ends_with(x.end); });
  if (known != std::end(kModules)) {
    Throw(ErrorCode::kUsage, "{} -m {}: write `fathom {}` in its place, the flags may stay", words[0], module, known->command);
  }
  Throw(ErrorCode::kUsage, "{} {}: write `fathom COMMAND` in its place; fathom --help lists the commands", words[0],
        module.empty() ? "..." : "-m " + module);
}

// Takes the command's words from the front of words. A first word that only two-word commands have lists those.
const Command& TakeCommand(std::vector<std::string>& words) {
  if (const Command* command = FindCommand(words)) {
    words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(Split(command->name).size()));
    return *command;
  }
  std::vector<std::string> names;
  for (const Command& command : Commands()) names.push_back(command.name);
  const auto relatives = Relatives(words[0]);
  if (!relatives.empty()) Throw(ErrorCode::kUsage, "fathom {}: which one? {}", words[0], fmt::join(relatives, ", "));
  RefusePython(words);
  const std::string name = words.size() > 1 && words[1].find('=') == words[1].npos ? words[0] + " " + words[1] : words[0];
  const std::string near = NearestName(words[0], names);
  Throw(ErrorCode::kUsage, "unknown command {}{} (fathom --help lists all)", words[0], DidYouMean(near.empty() ? name : words[0], names));
}

// What FollowGivenFlags does not compare.
constexpr const char* kNotOfTheModel[] = {"base_num_kv_heads",      "mtp_num_layers", "mlp_activations", "logits_via_embedding",
                                          "global_parameter_scale", "bos_token_id",   "eos_token_id",    "initializer_range"};

// A command that opens a checkpoint holds the flags of its model against it.
std::set<std::string> ReadBy(const Command& command) {
  std::set<std::string> read(command.flags.begin(), command.flags.end());
  if (read.contains("load_parameters_path")) {
    for (const std::string& flag : ModelFlags()) {
      if (std::ranges::find(kNotOfTheModel, flag) == std::end(kNotOfTheModel)) read.insert(flag);
    }
  }
  read.insert(CommonFlags().begin(), CommonFlags().end());
  read.insert(ResolvedFlags().begin(), ResolvedFlags().end());
  return read;
}

bool IsFromHere(const Flag& flag) { return flag.source == "command line" || flag.source.starts_with("environment"); }

// The command whose result is asked for: the one that `plan` plans.
std::string Purpose(const Command& command, const RunConfig& config) {
  if (command.name != "plan") return command.name;
  return config.words().empty() ? "train" : config.words()[0];
}

// Flags that were given and that this command does not read. A yml serves several commands and repeats defaults: what it sets is named if
// it asks for something that no command does.
std::vector<std::string> Unread(const Command& command, const RunConfig& config) {
  const std::set<std::string> read = ReadBy(command);
  std::vector<std::string> unread;
  for (const auto& [key, flag] : config.flags()) {
    const FlagSpec& spec = FindFlag(key, "flags");
    if (spec.IsRefusedBy(Purpose(command, config)) || read.contains(key)) continue;
    const bool asks = config.Given(key) && flag.value != spec.default_value && spec.role != FlagRole::kOwn;
    if (IsFromHere(flag) || asks) unread.push_back(key);
  }
  unread.insert(unread.end(), config.unknown().begin(), config.unknown().end());
  return unread;
}

// A flag that another command would follow, given to this one: log_level=warning doesn't hide that.
bool IsMisplaced(const RunConfig& config, const std::string& key) {
  const auto flag = config.flags().find(key);
  if (flag == config.flags().end() || !IsFromHere(flag->second)) return false;
  const FlagSpec& spec = FindFlag(key, "flags");
  return spec.role != FlagRole::kAccepted && flag->second.value != spec.default_value;
}

// Without its adapter a checkpoint is another model; where tokens are dropped, its answers are others.
void RefuseUnread(const Command& command, const RunConfig& config) {
  constexpr const char *kAdapter = "hf_lora_adapter_path", *kCapacity = "capacity_factor";
  const std::set<std::string> read = ReadBy(command);
  if (!config.String(kAdapter).empty() && !read.contains(kAdapter)) {
    Throw(ErrorCode::kUsage, "{}={}: fathom {} takes no adapter; fathom convert merges it into its base", kAdapter, config.String(kAdapter),
          command.name);
  }
  const bool runs_model = command.name == "decode" || command.name.starts_with("eval ") || command.name.starts_with("check ");
  if (runs_model && !read.contains(kCapacity) && config.Float(kCapacity) > 0 && IsFromHere(config.flags().at(kCapacity)))
    Throw(ErrorCode::kUsage, "{}={}: fathom {} drops no tokens; leave it out", kCapacity, config.Float(kCapacity), command.name);
}

void NameUnread(const Command& command, const RunConfig& config) {
  const auto unread = Unread(command, config);
  if (unread.empty()) return;
  const bool matters = std::ranges::any_of(unread, [&](const std::string& key) { return IsMisplaced(config, key); });
  spdlog::log(matters ? spdlog::level::warn : spdlog::level::info, "accepted, no effect here: {}", fmt::join(unread, ", "));
}

// The yml of defaults of the command, or of the one that `plan` is asked about.
std::string DefaultsOf(const Command& command, const std::vector<std::string>& words) {
  if (command.name != "plan" && command.name != "config") return command.defaults;
  const auto planned = std::ranges::find_if(Commands(), [&](const Command& c) { return std::ranges::count(words, c.name) > 0; });
  return planned == Commands().end() ? "" : planned->defaults;
}

// What stands beside the flags. A comment or a blank comes from a pasted command, of which the shell has cut the rest off.
void RefuseWord(const Command& command, const std::string& word) {
  if (word.starts_with('#'))
    Throw(ErrorCode::kUsage, "{}: the shell passed a comment on ({}): paste the command without its comment lines", command.name, word);
  if (word.find_first_not_of(" \t\r\n") == word.npos) {
    Throw(ErrorCode::kUsage, "{}: a blank argument: is there a space after the backslash at the end of a line? What follows it is lost",
          command.name);
  }
  Throw(ErrorCode::kUsage, "{}: unexpected {}; flags are written key=value (fathom {} --help lists them)", command.name, word,
        command.name);
}

// A full disk behind standard output must not look like success.
bool OutputWasWritten() { return std::fflush(stdout) == 0 && std::ferror(stdout) == 0; }

// On this process, or on this one of several ranks.
int RunCommand(const Command& command, const RunConfig& config, const Comm& world) {
  if (world.size() == 1) return command.run(config);
  const Mesh mesh(world, ReadMesh(config, world.size()));
  if (command.run_rank == nullptr)
    Throw(ErrorCode::kUsage, "fathom {}: one process, and {} were started; start it without mpirun", command.name, world.size());
  return command.run_rank(config, mesh);
}

// More threads than cores would only wait for each other, and the result has the same bits; a plan may be for another machine.
void UseThreads(const Command& command, int threads) {
  const int cores = UsableCores();
  SetThreads(threads > 0 ? threads : cores);
  if (threads <= cores || command.name == "plan") return;
  spdlog::info("threads={}: this process has {} cores, and uses as many threads", threads, cores);
  SetThreads(cores);
}

int Run(std::vector<std::string> words, Ranks& ranks) {
  if (words.empty() || words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
    PrintUsage();
    return words.empty() ? static_cast<int>(ErrorCode::kUsage) : 0;
  }
  if (words[0] == "--version") {
    fmt::print("fathom {}\n", FATHOM_VERSION);
    return 0;
  }
  if (AsksForHelp(words) && FindCommand(words) == nullptr && PrintGroupHelp(words[0])) return 0;
  SetUpLogging("info");
  if (StartedAsRank()) ranks.Join();  // what is wrong from here on is said once
  const Command& command = TakeCommand(words);
  if (AsksForHelp(words)) {
    if (ranks.is_first()) PrintHelp(command);
    return 0;
  }
  RunConfig config = RunConfig::Resolve(words, DefaultsOf(command, words));
  SetUpLogging(config.String("log_level"));
  if (RanksToStart(config) > 0 && command.name != "config") {
    if (StartedAsRank())
      Throw(ErrorCode::kUsage, "ranks={}: this process has been started as one of several; leave it out", config.String("ranks"));
    return LaunchRanks(command.name, words, config);
  }
  ranks.Join(config.String("ranks") == "mpi");
  ranks.Watch(config.Float("hang_seconds"));
  CheckSameFlags(ranks.world(), command.name, config);
  if (!config.words().empty() && command.operands.empty()) RefuseWord(command, config.words()[0]);
  if (command.name != "config") {  // which shows what was given, and does nothing with it
    CheckHonoured(Purpose(command, config), config);
    // A mesh that the flags ask for is what runs, or an error.
    const bool runs_here = command.name != "plan";  // which plans for ranks that are elsewhere
    if (ranks.world().size() > 1 || (runs_here && FindFlag("num_slices", "flags").IsRefusedBy(command.name)))
      ReadMesh(config, ranks.world().size());
    RefuseUnread(command, config);
    NameUnread(command, config);
  }
  if (ranks.is_first()) CheckOutputs(command.name, ReadBy(command), config);
  SetNumaPolicy(config.String("numa"));
  UseThreads(command, static_cast<int>(config.Int("threads")));
  CheckAddressSpace(NumThreads());
  ReportCutFiles();
  PinSimdTarget(GetEnv("FATHOM_SIMD").value_or(""));
  const bool reads_parameters = std::ranges::find(command.flags, "load_parameters_path") != command.flags.end();
  const auto readable = reads_parameters ? std::make_unique<ReadableCheckpoint>(command.name, config) : nullptr;
  return RunCommand(command, config, ranks.world());
}

// A message must stay one line whatever file name or text it quotes. Where it can't be written the exit code is all that is left to say.
std::string ErrorLine(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  return fmt::format("fathom: error: {}\n", message);
}
void PrintError(const std::string& message) { std::fputs(ErrorLine(message).c_str(), stderr); }

struct Outcome {
  int code = 0;
  bool thrown = false;
  std::string message;
};

Outcome RunAndCatch(std::vector<std::string> words, Ranks& ranks) {
  const auto failed = [](ErrorCode code, const std::string& message) { return Outcome{static_cast<int>(code), true, ErrorLine(message)}; };
  try {
    return {Run(std::move(words), ranks)};
  } catch (const Error& e) {
    return failed(e.code(), e.what());
  } catch (const std::filesystem::filesystem_error& e) {
    const std::string second = e.path2().empty() ? "" : fmt::format(" -> {}", e.path2().string());
    return failed(CodeOfErrno(e.code().value()), fmt::format("{}{}: {}", e.path1().string(), second, e.code().message()));
  } catch (const std::bad_alloc&) {
    return failed(ErrorCode::kResource, "out of memory: use a smaller batch or model, or a machine with more memory");
  } catch (const std::system_error& e) {
    Outcome outcome = failed(CodeOfErrno(e.code().value()), e.what());
    if (std::ferror(stdout) != 0) outcome.message.clear();  // said below
    return outcome;
  } catch (const std::exception& e) {
    return failed(ErrorCode::kFailed, e.what());
  }
}

int RunAndExplain(std::vector<std::string> words) {
  Ranks ranks;
  const Outcome outcome = RunAndCatch(std::move(words), ranks);
  if (outcome.thrown) ranks.Fail(outcome.code, outcome.message);
  return outcome.code;
}

// A full disk behind standard output must not look like success, nor like another fault.
int RunGuarded(std::vector<std::string> words) {
  const int code = RunAndExplain(std::move(words));
  if (OutputWasWritten()) return code;
  PrintError("standard output: cannot be written");
  return static_cast<int>(ErrorCode::kResource);
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  fathom::StartOverWithShortSpins(argv);
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error like a full disk, and leaves no half-written folder
  return fathom::RunGuarded(std::vector<std::string>(argv + 1, argv + argc));
}
