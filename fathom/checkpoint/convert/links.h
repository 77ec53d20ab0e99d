// Links in a checkpoint's folder: those that stay in it are fine, others could make a stranger's checkpoint show (and copy) any file of
// ours.
#pragma once

#include <filesystem>

namespace fathom {

// Throws Error(kInput), naming both ends, if `file` (below `folder`) leads through a link to somewhere outside the folder. The hub's cache
// is no such place: its snapshots/<commit>/ links to ../../blobs/.
void RequireInside(const std::filesystem::path& file, const std::filesystem::path& folder);

}  // namespace fathom
