// A log in a file beside, or in place of, that on stderr.
#pragma once

#include <filesystem>
#include <string>

namespace fathom {

// What is logged from now on is added to the file, line by line; alone: nothing goes to stderr. level: as SetUpLogging. Throws
// Error(kResource).
void LogToFile(const std::filesystem::path& path, const std::string& level, bool alone);

}  // namespace fathom
