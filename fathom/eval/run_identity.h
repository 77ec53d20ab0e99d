// Which model it was: what lets the rows of two runs stand in one file.
#pragma once

#include <filesystem>
#include <span>

#include "fathom/base/json.h"

namespace fathom {

// Name and size of every file that decides on a model, an adapter or a tokenizer in these folders (or of these files), and its time of
// change; by_content: a hash of its bytes in place of the time. Where the folders lie makes no difference. Throws Error(kInput).
Json FilesIdentity(std::span<const std::filesystem::path> paths, bool by_content);

}  // namespace fathom
