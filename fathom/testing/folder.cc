#include "fathom/testing/folder.h"

#include <stdlib.h>

#include "fathom/base/error.h"

namespace fathom {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "fathom-test-XXXXXX").string();
  FATHOM_CHECK(::mkdtemp(pattern.data()) != nullptr, "{}", pattern);
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace fathom
