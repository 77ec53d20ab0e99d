#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "apps/command.h"
#include "apps/late_progress.h"
#include "apps/prompt_ids.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/file.h"
#include "fathom/checkpoint/check/compare_parameters.h"
#include "fathom/eval/compare_runs.h"
#include "fathom/model/layer_flags.h"
#include "fathom/tokenizer/tokenizer.h"

namespace fathom {
namespace {

constexpr size_t kNamed = 6;  // in a sentence; json= has them all

// What the names of the parameters follow.
const char* Sentence(ParameterCause cause) {
  switch (cause) {
    case ParameterCause::kExpertsPermuted:
      return "b has other experts' values in";
    case ParameterCause::kGateUpSwapped:
      return "gate and up are in each other's place in b:";
    case ParameterCause::kTransposed:
      return "b has the transposed matrix in";
    case ParameterCause::kRopeRows:
      return "the rotary rows are in halves on one side, in pairs on the other:";
    case ParameterCause::kFp8Scales:
      return "the FP8 codes are the same, their scales are not:";
    case ParameterCause::kZeroed:
      return "b has nothing but 0 in";
    case ParameterCause::kRounded:
      return "b has a's values in a narrower dtype in";
    case ParameterCause::kValues:
      return "b has other values, for none of the reasons above, in";
  }
  return "";
}

struct Cause {
  ParameterCause cause;
  std::vector<std::string> parameters;
};

// One per kind, in the order of the enumeration.
std::vector<Cause> ByCause(const std::vector<ParameterDifference>& differences) {
  std::map<ParameterCause, std::vector<std::string>> names;
  for (const ParameterDifference& d : differences) names[d.cause].push_back(d.name);
  std::vector<Cause> causes;
  for (auto& [cause, parameters] : names) causes.push_back({cause, std::move(parameters)});
  return causes;
}

// The first layer that may compute something else.
int64_t FirstLayer(const std::vector<ParameterDifference>& differences, const std::vector<ConfigDifference>& fields) {
  if (!fields.empty() || differences.empty()) return 0;
  int64_t first = differences[0].layer;
  for (const ParameterDifference& d : differences) first = std::min(first, d.layer);
  return std::max<int64_t>(first, 0);
}

void PrintCauses(const std::vector<Cause>& causes, const std::vector<ConfigDifference>& fields) {
  for (const Cause& c : causes) {
    const size_t named = std::min(kNamed, c.parameters.size());
    fmt::print("{}: {} {}", CauseName(c.cause), Sentence(c.cause),
               fmt::join(c.parameters.begin(), c.parameters.begin() + static_cast<std::ptrdiff_t>(named), ", "));
    fmt::print("{}\n", named < c.parameters.size() ? fmt::format(" and {} more", c.parameters.size() - named) : "");
  }
  for (const ConfigDifference& d : fields) fmt::print("config: {} is {} in a, {} in b\n", d.key, d.a.dump(), d.b.dump());
}

// The choices that only one side made.
std::string OnlyIn(const std::vector<ScoredChoice>& these, const std::vector<ScoredChoice>& those) {
  std::vector<std::string> only;
  for (const ScoredChoice& c : these) {
    if (std::ranges::none_of(those, [&](const ScoredChoice& other) { return other.id == c.id; }))
      only.push_back(fmt::format("{} ({:.6f})", c.id, c.score));
  }
  return only.empty() ? "nothing" : fmt::format("{}", fmt::join(only, ", "));
}

void PrintRuns(const RunDifferences& runs) {
  if (runs.first) {
    fmt::print("first: the outputs part at layer {}, token {} (counted from 0; by more than {:g} of the output's norm)\n",
               runs.first->layer, runs.first->token, kSameOutput);
  } else {
    fmt::print("first: no layer's output differs by more than {:g} of its norm\n", kSameOutput);
  }
  if (!runs.choice) {
    fmt::print("choice: indexer, groups and router choose the same everywhere\n");
    return;
  }
  const auto& c = *runs.choice;
  fmt::print("choice: the {} of layer {} chooses otherwise at token {}: only a: {}; only b: {} (scores in brackets)\n", c.kind, c.layer,
             c.token, OnlyIn(c.a, c.b), OnlyIn(c.b, c.a));
}

Json CausesJson(const std::vector<Cause>& causes, const std::vector<ConfigDifference>& fields) {
  Json list = Json::array();
  for (const Cause& c : causes) list.push_back({{"cause", CauseName(c.cause)}, {"parameters", c.parameters}});
  for (const ConfigDifference& d : fields) list.push_back({{"cause", "config"}, {"key", d.key}});
  return list;
}

Json ChosenJson(const std::vector<ScoredChoice>& choice) {
  Json list = Json::array();
  for (const ScoredChoice& c : choice) list.push_back({{"id", c.id}, {"score", c.score}});
  return list;
}

Json RunsJson(const RunDifferences& runs) {
  Json json = {{"first", nullptr}, {"choice", nullptr}};
  if (runs.first) json["first"] = {{"layer", runs.first->layer}, {"token", runs.first->token}};
  if (runs.choice) {
    const auto& c = *runs.choice;
    json["choice"] = {{"layer", c.layer}, {"kind", c.kind}, {"token", c.token}, {"a", ChosenJson(c.a)}, {"b", ChosenJson(c.b)}};
  }
  return json;
}

std::vector<int32_t> ReadPrompt(const RunConfig& config, const std::filesystem::path& dir) {
  if (!config.String("prompt_ids").empty()) return ParsePromptIds(config.String("prompt_ids"));
  if (!config.Given("prompt")) Throw(ErrorCode::kUsage, "check compare needs prompt= or prompt_ids= (what both are run on)");
  const std::string& path = config.String("tokenizer_path");
  const Tokenizer tokenizer = Tokenizer::Load(path.empty() ? dir : std::filesystem::path(path));
  const bool bos = config.Bool("add_bos") && tokenizer.bos_id().has_value();
  std::vector<int32_t> ids = tokenizer.Encode(config.String("prompt"), {.add_bos = bos});
  if (ids.empty()) Throw(ErrorCode::kUsage, "prompt=: no token in it");
  return ids;
}

std::vector<ParameterDifference> CompareFiles(const Checkpoint& a, const Checkpoint& b) {
  LateProgress progress("comparing parameters", "GB", static_cast<double>(a.NumBytes()), 1e9);
  auto differences = CompareParameters(a, b, [&](int64_t bytes) { progress.Update(static_cast<double>(bytes)); });
  progress.Finish();
  return differences;
}

RunDifferences RunBoth(const RunConfig& config, const Checkpoint& a, const Checkpoint& b, std::span<const int32_t> ids, int64_t from) {
  LateProgress progress("running both", "layers", static_cast<double>(a.config().num_hidden_layers));
  auto runs = CompareRuns(a, b, ParseComputeDType(config, "dtype"), ids, from,
                          [&](int64_t layers) { progress.Update(static_cast<double>(layers)); });
  progress.Finish();
  return runs;
}

int Run(const RunConfig& config) {
  if (config.String("a").empty() || config.String("b").empty())
    Throw(ErrorCode::kUsage, "check compare needs a= and b= (the folders of two checkpoints)");
  const ReadableCheckpoint readable_a(config, "a"), readable_b(config, "b");
  const std::vector<int32_t> ids = ReadPrompt(config, readable_a.dir());
  const Checkpoint a = OpenCheckpoint(config, readable_a.dir()), b = OpenCheckpoint(config, readable_b.dir());
  CheckTokens(a, ids);
  const std::vector<ConfigDifference> fields = CompareConfigs(a.config(), b.config());
  const std::vector<ParameterDifference> differences = CompareFiles(a, b);
  const std::vector<Cause> causes = ByCause(differences);
  PrintCauses(causes, fields);
  const bool same = causes.empty() && fields.empty();
  RunDifferences runs;
  if (same) {
    fmt::print("the two are the same: every parameter's values and every field of config.json\n");
  } else {
    runs = RunBoth(config, a, b, ids, FirstLayer(differences, fields));
    PrintRuns(runs);
  }
  Json result = RunsJson(runs);
  result["causes"] = CausesJson(causes, fields);
  if (!config.String("json").empty()) WriteOutput(config.String("json"), JsonText(result));
  return same ? 0 : static_cast<int>(ErrorCode::kFailed);
}

}  // namespace

Command CheckCompareCommand() {
  return {.name = "check compare",
          .summary = "two checkpoints of one shape: what differs, what happened to it, and where their outputs part",
          .flags = WithModelFlags({"a", "b", "ignore_config_keys", "prompt", "prompt_ids", "tokenizer_path", "add_bos", "dtype"}),
          .run = Run};
}

}  // namespace fathom
