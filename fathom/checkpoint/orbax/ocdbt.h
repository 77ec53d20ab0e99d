// An OCDBT database as Orbax uses it: read completely (every key; values stay in their files), written once.
#pragma once

#include <map>
#include <set>
#include <utility>

#include "fathom/checkpoint/orbax/key_store.h"
#include "fathom/checkpoint/orbax/ocdbt_format.h"

namespace fathom {

inline constexpr const char* kOcdbtManifest = "manifest.ocdbt";

// The newest version of the database in root. Throws Error(kInput), naming the file: damaged or missing manifest, node or data file; a path
// that leads out; a tree that is deeper or larger than it says, or than its bytes can hold (OcdbtBudget), or that uses a node twice.
class OcdbtStore : public KeyStore {
 public:
  explicit OcdbtStore(const std::filesystem::path& root);

  std::vector<std::string> KeysIn(const std::string& folder) const override;
  std::optional<StoredValue> Find(const std::string& key) const override;
  const OcdbtManifest& manifest() const { return manifest_; }

 private:
  struct Value {
    std::string bytes;
    const std::filesystem::path* file;  // nullptr: bytes is the value
    uint64_t offset, length;
  };
  OcdbtNode ReadNode(const OcdbtFile& file, const OcdbtSpan& span, int height, size_t prefix);
  void AddNode(const OcdbtFile& file, const OcdbtSpan& span, int height, const std::string& prefix);
  void AddLeaf(const OcdbtNode& node, const std::string& prefix, const std::filesystem::path& where);
  const std::filesystem::path* Intern(const std::string& path);

  OcdbtManifest manifest_;
  std::map<std::string, Value> values_;
  std::map<std::string, std::filesystem::path> paths_;
  std::set<std::pair<const std::filesystem::path*, uint64_t>> nodes_;  // file and offset of those that were read
  uint64_t stored_ = 0, spent_ = 0;                                    // their bytes there and, as OcdbtCost, here
};

struct OcdbtWriteOptions {
  OcdbtConfig config;
  uint64_t node_bytes = 8 << 20;  // of a node, roughly
  uint64_t commit_time = 0;       // ns since 1970
  std::string tree_file;          // the data file for the tree's nodes, e.g. "d/<32 hex>"
};

// A value for the tree: inline, or in a data file that is written already.
struct OcdbtItem {
  bool is_inline = true;
  std::string value;
  std::string file;  // relative to root
  uint64_t offset = 0, length = 0;
};

// Writes the tree of items and, last, the manifest into root. Throws Error(kResource).
void WriteOcdbtTree(const std::filesystem::path& root, const std::map<std::string, OcdbtItem>& items, const OcdbtWriteOptions& options);

}  // namespace fathom
