// What the tokenizer's commands share: JSON lines in (or text=), one line out for each, an object with "error" where one can't be used.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/config/run_config.h"
#include "fathom/tokenizer/tokenizer.h"

namespace fathom {

// A line of the input files, or what `text=` stands for.
template <class Value>
struct JsonRow {
  std::string where;
  Value value;
  std::string error = "";  // why it can't be used: goes out in its place
  void Refuse(std::string_view what) { error = fmt::format("{}: {}", where, what); }
};

// Gets a line with more than blanks; where is "FILE line N".
using HandleLine = std::function<void(std::string_view line, const std::string& where)>;
// Calls line for each of a file's. "-" is standard input.
void ForEachLine(const std::string& path, const HandleLine& line);
// The same for every file of input=.
void ForEachInputLine(const RunConfig& config, const HandleLine& line);
// Throws Error(kUsage) unless there is an input= or a text=.
void CheckInputGiven(const RunConfig& config);

// parse(line, where) throws Error for what is no JSON. Rows that aren't objects have an error.
template <class Value, class OfText, class Parse>
std::vector<JsonRow<Value>> ReadJsonRows(const RunConfig& config, const OfText& value_of_text, const Parse& parse) {
  CheckInputGiven(config);
  if (config.Strings("input").empty()) return {{"text", value_of_text(config.String("text"))}};
  std::vector<JsonRow<Value>> rows;
  ForEachInputLine(config, [&](std::string_view line, const std::string& where) {
    JsonRow<Value>& row = rows.emplace_back(where, Value());
    try {
      row.value = parse(line, where);
      if (!row.value.is_object()) row.Refuse("not a JSON object");
    } catch (const Error& e) {
      row.error = e.what();
    }
  });
  return rows;
}

template <class Value>
size_t CountErrors(const std::vector<JsonRow<Value>>& rows) {
  return static_cast<size_t>(std::ranges::count_if(rows, [](const auto& row) { return !row.error.empty(); }));
}

// After everything is written: throws Error(kInput) with the first row's error, if one has any.
template <class Value>
void CheckRows(const std::vector<JsonRow<Value>>& rows) {
  const auto first = std::ranges::find_if(rows, [](const auto& row) { return !row.error.empty(); });
  if (first == rows.end()) return;
  Throw(ErrorCode::kInput, "{} ({} of {} input rows are wrong; the output has an \"error\" for each)", first->error, CountErrors(rows),
        rows.size());
}

// {"error": ...} and a newline. Messages may quote bytes that are no UTF-8.
void AppendError(const std::string& error, std::string& out);

// output=, or standard output.
std::string OutputPath(const RunConfig& config);
void WriteResult(const RunConfig& config, const Json& result);
// tokenizer_path=. Throws Error(kUsage) if it is empty.
Tokenizer LoadTokenizer(const RunConfig& config);

}  // namespace fathom
