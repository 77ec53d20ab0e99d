// fathom tokenizer train | encode | decode
#include "fathom/tokenizer/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <iostream>
#include <iterator>

#include "apps/command.h"
#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/progress.h"
#include "fathom/tokenizer/tokenizer_writer.h"
#include "fathom/tokenizer/trainer.h"

namespace fathom {
namespace {

constexpr size_t kBatchRows = 1024;

std::string OutputPath(const RunConfig& config) { return config.String("output").empty() ? "-" : config.String("output"); }

void WriteResult(const RunConfig& config, const Json& result) {
  if (!config.String("json").empty()) WriteOutput(config.String("json"), result.dump(2) + "\n");
}

Tokenizer LoadTokenizer(const RunConfig& config) {
  const std::string& path = config.String("tokenizer_path");
  if (path.empty()) Throw(ErrorCode::kUsage, "tokenizer_path: none given; name a folder with tokenizer.json");
  return Tokenizer::Load(path);
}

// One object per line of the input files, or the row that `text=` stands for.
std::vector<Json> ReadRows(const RunConfig& config, const std::function<Json(const std::string&)>& row_of_text) {
  const auto& inputs = config.Strings("input");
  if (inputs.empty() && !config.Given("text")) Throw(ErrorCode::kUsage, "input: none given; name a JSONL file (or give text=)");
  if (inputs.empty()) return {row_of_text(config.String("text"))};
  std::vector<Json> rows;
  for (const std::string& path : inputs) {
    const bool standard = path == "-" || path == "/dev/stdin";
    const std::string text = standard ? std::string(std::istreambuf_iterator<char>(std::cin), {}) : ReadTextFile(path, size_t{1} << 40);
    int64_t number = 0;
    for (std::string_view rest = text; !rest.empty();) {
      const size_t newline = rest.find('\n');
      const std::string_view line = rest.substr(0, newline);
      rest.remove_prefix(newline == rest.npos ? rest.size() : newline + 1);
      const std::string where = fmt::format("{} line {}", path, ++number);
      if (line.find_first_not_of(" \t\r") == line.npos) continue;
      rows.push_back(ParseJson(line, where));
      if (!rows.back().is_object()) Throw(ErrorCode::kInput, "{}: not a JSON object", where);
    }
  }
  return rows;
}

[[noreturn]] void BadRow(size_t index, const char* what) { Throw(ErrorCode::kInput, "input row {}: {}", index + 1, what); }

void AppendRow(const std::vector<int32_t>& ids, std::string& out) {
  out += "{\"ids\": [";
  for (size_t i = 0; i < ids.size(); ++i) out.append(i ? ", " : "").append(std::to_string(ids[i]));
  out += "]}\n";
}

int Encode(const RunConfig& config) {
  const auto rows = ReadRows(config, [](const std::string& text) { return Json{{"text", text}}; });
  std::vector<std::string_view> texts;
  for (const Json& row : rows) {
    const auto it = row.find("text");
    if (it == row.end() || !it->is_string()) BadRow(texts.size(), "no string \"text\"");
    texts.push_back(it->get_ref<const std::string&>());
  }
  const Tokenizer tokenizer = LoadTokenizer(config);
  std::string out;
  size_t bytes = 0, tokens = 0;
  double seconds = 0;  // of encoding alone, without reading and writing JSON
  for (size_t begin = 0; begin < texts.size(); begin += kBatchRows) {
    const auto batch = std::span(texts).subspan(begin, std::min(kBatchRows, texts.size() - begin));
    const Stopwatch clock;
    const auto encoded = tokenizer.EncodeBatch(batch);
    seconds += clock.Seconds();
    for (const auto& ids : encoded) {
      AppendRow(ids, out);
      tokens += ids.size();
    }
    for (const std::string_view text : batch) bytes += text.size();
  }
  WriteOutput(OutputPath(config), out);
  WriteResult(config, {{"texts", texts.size()}, {"bytes", bytes}, {"tokens", tokens}, {"seconds", seconds}});
  return 0;
}

// "1,2,3", "1 2 3", "[1, 2, 3]".
Json RowOfIds(const std::string& text) {
  Json ids = Json::array();
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    int64_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error == std::errc()) ids.push_back(id);
    const bool separator = error != std::errc() && std::string_view(",[] ").find(*at) != std::string_view::npos;
    if (error != std::errc() && !separator) Throw(ErrorCode::kUsage, "text=\"{}\": token ids are numbers with commas between", text);
    at = error == std::errc() ? next : at + 1;
  }
  return Json{{"ids", ids}};
}

std::vector<int32_t> IdsOf(const Json& row, size_t index) {
  const auto it = row.find("ids");
  if (it == row.end() || !it->is_array()) BadRow(index, "no array \"ids\"");
  std::vector<int32_t> ids;
  for (const Json& id : *it) {
    if (!id.is_number_integer() || id < 0 || id > 0x7FFFFFFF)
      BadRow(index, "\"ids\" holds what is no token id (an integer from 0 to 2^31 - 1)");
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

int Decode(const RunConfig& config) {
  const auto rows = ReadRows(config, RowOfIds);
  const Tokenizer tokenizer = LoadTokenizer(config);
  std::string out;
  for (size_t i = 0; i < rows.size(); ++i) out += Json{{"text", tokenizer.Decode(IdsOf(rows[i], i))}}.dump() + "\n";
  WriteOutput(OutputPath(config), out);
  return 0;
}

int Train(const RunConfig& config) {
  std::vector<std::string> inputs = config.Strings("input");
  inputs.insert(inputs.end(), config.words().begin(), config.words().end());  // input=a.txt b.txt
  if (inputs.empty()) Throw(ErrorCode::kUsage, "input: none given; name the text files to learn from");
  if (config.String("output").empty()) Throw(ErrorCode::kUsage, "output: none given; name the folder to write");
  const Stopwatch clock;
  const PreTokenizer pre_tokenizer = PreTokenizer::DeepSeekV3();
  WordCounts counts;
  size_t bytes = 0;
  for (const std::string& path : inputs) {
    const auto file = MappedFile::Open(path);
    CountWords({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}, pre_tokenizer, counts);
    bytes += file->bytes().size();
  }
  const TrainedBpe bpe = TrainBpe(counts, config.Int("vocab_size"), config.Strings("special_tokens"));
  WriteTokenizer(config.String("output"), bpe, pre_tokenizer);
  const double seconds = clock.Seconds();
  fmt::print("{}: {} tokens ({} merges) from {} in {}\n", config.String("output"), bpe.tokens.size(), bpe.merges.size(),
             FormatBytes(static_cast<double>(bytes)), FormatSeconds(seconds));
  WriteResult(config, {{"vocab_size", bpe.tokens.size()},
                       {"merges", bpe.merges.size()},
                       {"bytes", bytes},
                       {"distinct_words", counts.size()},
                       {"seconds", seconds}});
  return 0;
}

}  // namespace

Command TokenizerTrainCommand() {
  return {"tokenizer train",
          "learn a byte-level BPE vocabulary from text files",
          {"input", "vocab_size", "output", "special_tokens"},
          Train,
          "[FILE...]"};
}

Command TokenizerEncodeCommand() {
  return {"tokenizer encode", "text to token ids, JSON lines in and out", {"tokenizer_path", "input", "text", "output"}, Encode};
}

Command TokenizerDecodeCommand() {
  return {"tokenizer decode", "token ids to text, JSON lines in and out", {"tokenizer_path", "input", "text", "output"}, Decode};
}

}  // namespace fathom
