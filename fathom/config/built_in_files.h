// The files of configs/, part of the program, so that it runs from any folder.
#pragma once

#include <string_view>
#include <vector>

namespace fathom {

struct BuiltInFile {
  std::string_view name;  // relative to configs/: "base.yml", "models/deepseek3-671b.yml"
  std::string_view text;
};

const std::vector<BuiltInFile>& BuiltInFiles();

}  // namespace fathom
