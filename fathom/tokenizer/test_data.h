// The rows of tests/data/tokenizer (tools/make_tokenizer_test_data.py).
#pragma once

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/base/json.h"

namespace fathom {

inline std::filesystem::path TokenizerTestData() { return std::filesystem::path(FATHOM_TEST_DATA) / "tokenizer"; }

inline std::vector<Json> TokenizerTestRows(const std::string& name) {
  std::istringstream lines(ReadTextFile(TokenizerTestData() / name));
  std::vector<Json> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(ParseJson(line, name));
  return rows;
}

}  // namespace fathom
