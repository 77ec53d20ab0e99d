#include "apps/json_rows.h"

#include "fathom/base/file.h"

namespace fathom {

void ForEachLine(const std::string& path, const HandleLine& line) {
  const bool standard = path == "-" || path == "/dev/stdin";
  const std::string text = standard ? ReadStandardInput() : ReadTextFile(path, size_t{1} << 40);
  int64_t number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t newline = rest.find('\n');
    const std::string_view one = rest.substr(0, newline);
    rest.remove_prefix(newline == rest.npos ? rest.size() : newline + 1);
    const std::string where = fmt::format("{} line {}", path, ++number);
    if (one.find_first_not_of(" \t\r") != one.npos) line(one, where);
  }
}

void ForEachInputLine(const RunConfig& config, const HandleLine& line) {
  for (const std::string& path : config.Strings("input")) ForEachLine(path, line);
}

void CheckInputGiven(const RunConfig& config) {
  if (config.Strings("input").empty() && !config.Given("text"))
    Throw(ErrorCode::kUsage, "input: none given; name a JSONL file (or give text=)");
}

void AppendError(const std::string& error, std::string& out) {
  out += Json{{"error", error}}.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string OutputPath(const RunConfig& config) { return config.String("output").empty() ? "-" : config.String("output"); }

void WriteResult(const RunConfig& config, const Json& result) {
  if (!config.String("json").empty()) WriteOutput(config.String("json"), JsonText(result, 2));
}

Tokenizer LoadTokenizer(const RunConfig& config) {
  const std::string& path = config.String("tokenizer_path");
  if (path.empty()) Throw(ErrorCode::kUsage, "tokenizer_path: none given; name a folder with tokenizer.json");
  return Tokenizer::Load(path);
}

}  // namespace fathom
