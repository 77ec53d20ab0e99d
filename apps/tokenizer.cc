// fathom tokenizer train | encode | decode
#include "fathom/tokenizer/tokenizer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "apps/command.h"
#include "apps/json_rows.h"
#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/progress.h"
#include "fathom/base/rng.h"
#include "fathom/data/document_stream.h"
#include "fathom/data/token_file.h"
#include "fathom/tokenizer/tokenizer_writer.h"
#include "fathom/tokenizer/trainer.h"

namespace fathom {
namespace {

constexpr size_t kBatchRows = 1024;
constexpr size_t kReadBytes = 1 << 20, kTextBytes = 64 << 20;  // of a compressed text: at a time, before words are counted

void AppendRow(const std::vector<int32_t>& ids, std::string& out) {
  out += "{\"ids\": [";
  for (size_t i = 0; i < ids.size(); ++i) out.append(i ? ", " : "").append(std::to_string(ids[i]));
  out += "]}\n";
}

using InputRow = JsonRow<Json>;

std::vector<InputRow> ReadRows(const RunConfig& config, Json (*value_of_text)(const std::string& text)) {
  return ReadJsonRows<Json>(config, value_of_text, [](std::string_view line, const std::string& where) { return ParseJson(line, where); });
}

std::string_view TextOf(InputRow& row) {
  const auto it = row.value.find("text");
  if (it != row.value.end() && it->is_string()) return it->get_ref<const std::string&>();
  if (row.error.empty()) row.Refuse("no string \"text\"");
  return {};
}

// Text files of any kind that training reads, into one file of tokens.
int EncodeToFile(const RunConfig& config, const std::string& output) {
  if (config.Strings("input").empty()) Throw(ErrorCode::kUsage, "input: none given; name the text files to tokenise");
  const Tokenizer tokenizer = LoadTokenizer(config);
  std::filesystem::path dir = config.String("tokenizer_path");
  if (std::filesystem::is_directory(dir)) dir /= "tokenizer.json";
  DocumentStream stream({.dataset_path = fmt::format("{}", fmt::join(config.Strings("input"), ",")),
                         .path_flag = "input",
                         .text_field = OneColumn(config.Strings("train_data_columns"), "train_data_columns"),
                         .shuffle = false});
  TokenFileWriter writer(output, HashName(ReadTextFile(dir)));
  const Stopwatch clock;
  size_t bytes = 0;
  std::vector<Document> documents;
  for (bool more = true; more;) {
    documents.clear();
    while (documents.size() < kBatchRows && (more = stream.Next(&documents.emplace_back()))) {
    }
    if (!more) documents.pop_back();
    std::vector<std::string_view> texts;
    for (const Document& document : documents) texts.push_back(document.text);
    const auto encoded = tokenizer.EncodeBatch(texts);
    for (size_t i = 0; i < encoded.size(); ++i) {
      writer.Add(encoded[i], documents[i].ends);
      bytes += texts[i].size();
    }
  }
  writer.Close();
  const double seconds = clock.Seconds();
  fmt::print("{}: {} tokens of {} documents from {} in {}\n", output, writer.tokens(), writer.documents(),
             FormatBytes(static_cast<double>(bytes)), FormatSeconds(seconds));
  WriteResult(config, {{"documents", writer.documents()}, {"bytes", bytes}, {"tokens", writer.tokens()}, {"seconds", seconds}});
  return 0;
}

int Encode(const RunConfig& config) {
  if (config.String("output").ends_with(".tokens")) return EncodeToFile(config, config.String("output"));
  auto rows = ReadRows(config, [](const std::string& text) { return Json{{"text", text}}; });
  std::vector<std::string_view> texts;
  for (InputRow& row : rows) texts.push_back(TextOf(row));
  const Tokenizer tokenizer = LoadTokenizer(config);
  std::string out;
  size_t bytes = 0, tokens = 0;
  double seconds = 0;  // of encoding alone, without reading and writing JSON
  for (size_t begin = 0; begin < texts.size(); begin += kBatchRows) {
    const auto batch = std::span(texts).subspan(begin, std::min(kBatchRows, texts.size() - begin));
    const Stopwatch clock;
    const auto encoded = tokenizer.EncodeBatch(batch);
    seconds += clock.Seconds();
    for (size_t i = 0; i < encoded.size(); ++i) {
      const InputRow& row = rows[begin + i];
      row.error.empty() ? AppendRow(encoded[i], out) : AppendError(row.error, out);
      tokens += encoded[i].size();
      bytes += batch[i].size();
    }
  }
  WriteOutput(OutputPath(config), out);
  WriteResult(config, {{"texts", texts.size()}, {"errors", CountErrors(rows)}, {"bytes", bytes}, {"tokens", tokens}, {"seconds", seconds}});
  CheckRows(rows);
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

std::vector<int32_t> IdsOf(InputRow& row) {
  std::vector<int32_t> ids;
  if (!row.error.empty()) return ids;
  const auto it = row.value.find("ids");
  if (it == row.value.end() || !it->is_array()) {
    row.Refuse("no array \"ids\"");
    return ids;
  }
  for (const Json& id : *it) {
    if (id.is_number_integer() && id >= 0 && id <= 0x7FFFFFFF) {
      ids.push_back(id.get<int32_t>());
    } else {
      row.Refuse("\"ids\" holds what is no token id (an integer from 0 to 2^31 - 1)");
    }
  }
  return ids;
}

int Decode(const RunConfig& config) {
  auto rows = ReadRows(config, RowOfIds);
  const Tokenizer tokenizer = LoadTokenizer(config);
  std::string out;
  size_t bytes = 0, tokens = 0;
  const Stopwatch clock;
  for (InputRow& row : rows) {
    const std::vector<int32_t> ids = IdsOf(row);
    if (!row.error.empty()) {
      AppendError(row.error, out);
      continue;
    }
    const std::string text = tokenizer.Decode(ids);
    out += Json{{"text", text}}.dump() + "\n";
    tokens += ids.size();
    bytes += text.size();
  }
  const double seconds = clock.Seconds();
  WriteOutput(OutputPath(config), out);
  WriteResult(config, {{"texts", rows.size()}, {"errors", CountErrors(rows)}, {"bytes", bytes}, {"tokens", tokens}, {"seconds", seconds}});
  CheckRows(rows);
  return 0;
}

// Of rows, the string under text_field.
size_t CountRows(const DataFile& file, const std::string& text_field, const PreTokenizer& pre_tokenizer, WordCounts& counts) {
  DocumentReader reader(file, WholeFile(0, file), text_field, kTextBytes);
  size_t bytes = 0;
  for (Document document; reader.Next(&document); bytes += document.text.size()) CountWords(document.text, pre_tokenizer, counts);
  return bytes;
}

// Adds the words of a file to counts, whatever its compression. Returns the bytes of text.
size_t CountFile(const DataFile& file, const std::string& text_field, const PreTokenizer& pre_tokenizer, WordCounts& counts) {
  if (file.kind != FileKind::kText) return CountRows(file, text_field, pre_tokenizer, counts);
  if (!file.compressed) {
    const auto mapped = MappedFile::Open(file.path);
    CountWords({reinterpret_cast<const char*>(mapped->bytes().data()), mapped->bytes().size()}, pre_tokenizer, counts);
    return mapped->bytes().size();
  }
  const auto stream = OpenByteStream(file, 0, file.bytes);
  size_t bytes = 0;
  bool more = true;
  for (std::string text; more;) {  // whole lines; the last one waits for its end
    for (size_t n = 1; n > 0 && text.size() < kTextBytes; bytes += n) {
      const size_t before = text.size();
      text.resize(before + kReadBytes);
      n = stream->Read(text.data() + before, kReadBytes);
      text.resize(before + n);
      more = n > 0;
    }
    const size_t end = more ? text.rfind('\n') + 1 : text.size();
    CountWords(std::string_view(text).substr(0, end), pre_tokenizer, counts);
    text.erase(0, end);
  }
  return bytes;
}

int Train(const RunConfig& config) {
  std::vector<std::string> inputs = config.Strings("input");
  inputs.insert(inputs.end(), config.words().begin(), config.words().end());  // input=a.txt b.txt
  if (inputs.empty()) Throw(ErrorCode::kUsage, "input: none given; name the text files to learn from");
  if (config.String("output").empty()) Throw(ErrorCode::kUsage, "output: none given; name the folder to write");
  const Stopwatch clock;
  const PreTokenizer pre_tokenizer = PreTokenizer::DeepSeekV3();
  const std::string text_field = OneColumn(config.Strings("train_data_columns"), "train_data_columns");
  WordCounts counts;
  size_t bytes = 0;
  for (const DataFile& file : FindDataFiles(fmt::format("{}", fmt::join(inputs, ",")), "input"))
    bytes += CountFile(file, text_field, pre_tokenizer, counts);
  if (counts.empty()) Throw(ErrorCode::kInput, "input={}: no text to learn from", fmt::join(inputs, ","));
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
          {"input", "train_data_columns", "vocab_size", "output", "special_tokens"},
          Train,
          "[FILE...]"};
}

Command TokenizerEncodeCommand() {
  return {"tokenizer encode",
          "text to token ids, JSON lines in and out; or text files to one file of tokens",
          {"tokenizer_path", "input", "text", "train_data_columns", "output"},
          Encode};
}

Command TokenizerDecodeCommand() {
  return {"tokenizer decode", "token ids to text, JSON lines in and out", {"tokenizer_path", "input", "text", "output"}, Decode};
}

}  // namespace fathom
