#include "fathom/checkpoint/convert/links.h"

#include <algorithm>

#include "fathom/base/error.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

bool Holds(const fs::path& folder, const fs::path& path) { return std::ranges::mismatch(folder, path).in1 == folder.end(); }

}  // namespace

void RequireInside(const fs::path& file, const fs::path& folder) {
  std::error_code failed;
  const fs::path real = fs::canonical(file, failed), root = fs::canonical(folder, failed);
  if (failed) Throw(ErrorCode::kInput, "{}: cannot read: {}", file.string(), failed.message());
  if (Holds(root, real)) return;
  const fs::path snapshots = root.parent_path();
  if (snapshots.filename() == "snapshots" && Holds(snapshots.parent_path() / "blobs", real)) return;
  Throw(ErrorCode::kInput, "{}: leads out of its folder, to {}; put the file itself there", file.string(), real.string());
}

}  // namespace fathom
