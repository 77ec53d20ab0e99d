// The rows of tests/data/chat: what the original templates, encoder and parser answered.
#pragma once

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/chat/ordered_json.h"

namespace fathom {

inline std::vector<OrderedJson> ChatTestRows(const std::string& name) {
  std::istringstream lines(ReadTextFile(std::filesystem::path(FATHOM_TEST_DATA) / "chat" / name));
  std::vector<OrderedJson> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(ParseOrderedJson(line, name));
  return rows;
}

}  // namespace fathom
