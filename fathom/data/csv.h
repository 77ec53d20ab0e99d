// Comma-separated values as RFC 4180 and Python's csv module have them: a field in double quotes may hold commas, line ends and quotes
// written twice.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct CsvRow {
  std::vector<std::string> fields;
  int64_t line;  // of the text, from 1, on which the row begins
};

// Every row; lines without any character are none. A byte order mark is left out, \n, \r\n and \r end a row. `where` names the text in
// errors. Throws Error(kInput), with the line: a quote that never ends.
std::vector<CsvRow> ParseCsv(std::string_view text, const std::string& where);

}  // namespace fathom
