#include "fathom/checkpoint/orbax/ocdbt.h"

#include <algorithm>

#include "fathom/base/error.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMaxNodeBytes = uint64_t{1} << 29, kMaxManifestBytes = uint64_t{1} << 26;
constexpr int kMaxHeight = 32;

}  // namespace

OcdbtStore::OcdbtStore(const fs::path& root) : KeyStore(root) {
  const fs::path path = root / kOcdbtManifest;
  const std::string bytes = ReadTextFile(path, kMaxManifestBytes);
  manifest_ = ParseOcdbtManifest(std::as_bytes(std::span(bytes)), path.string());
  const OcdbtVersion& version = manifest_.versions.back();
  if (version.empty()) return;
  AddNode(manifest_.files[version.root.file], version.root, version.root_height, "");
  if (values_.size() != version.statistics.num_keys) {
    Throw(ErrorCode::kInput, "{}: {} keys in the tree, the manifest says {}", path.string(), values_.size(), version.statistics.num_keys);
  }
}

const fs::path* OcdbtStore::Intern(const std::string& path) { return &paths_.try_emplace(path, root() / path).first->second; }

OcdbtNode OcdbtStore::ReadNode(const OcdbtFile& file, const OcdbtSpan& span, int height, size_t prefix) {
  const fs::path* path = Intern(file.path);
  if (!nodes_.emplace(path, span.offset).second)
    Throw(ErrorCode::kInput, "{}: the tree uses the node at {} twice: damaged", path->string(), span.offset);
  const std::string bytes = Read(StoredValue{"", *path, span.offset, span.length}, kMaxNodeBytes);
  stored_ += bytes.size();
  const uint64_t left = OcdbtBudget(stored_) - spent_;
  OcdbtNode node = ParseOcdbtNode(std::as_bytes(std::span(bytes)), file.base, left, path->string());
  if (node.height != height || height > kMaxHeight)
    Throw(ErrorCode::kInput, "{}: a node of height {}, expected {}", path->string(), node.height, height);
  const uint64_t cost = OcdbtCost(node, prefix);
  if (cost > left) Throw(ErrorCode::kInput, "{}: keys become too long for so few bytes: damaged", path->string());
  spent_ += cost;
  return node;
}

void OcdbtStore::AddLeaf(const OcdbtNode& node, const std::string& prefix, const fs::path& where) {
  const uint64_t most = manifest_.versions.back().statistics.num_keys;
  for (const OcdbtLeafEntry& entry : node.leaves) {
    const fs::path* file = entry.is_inline ? nullptr : Intern(node.files[entry.span.file].path);
    const Value value = {entry.value, file, entry.span.offset, entry.span.length};
    if (!values_.try_emplace(prefix + entry.key, value).second)
      Throw(ErrorCode::kInput, "{}: key {} twice: damaged", where.string(), prefix + entry.key);
    if (values_.size() > most) Throw(ErrorCode::kInput, "{}: more than the {} keys that the manifest says: damaged", where.string(), most);
  }
}

void OcdbtStore::AddNode(const OcdbtFile& file, const OcdbtSpan& span, int height, const std::string& prefix) {
  const OcdbtNode node = ReadNode(file, span, height, prefix.size());
  AddLeaf(node, prefix, *Intern(file.path));
  for (const OcdbtChild& child : node.children) {
    AddNode(node.files[child.node.file], child.node, height - 1, prefix + child.key.substr(0, static_cast<size_t>(child.common_prefix)));
  }
}

std::vector<std::string> OcdbtStore::KeysIn(const std::string& folder) const {
  const std::string start = folder.empty() ? "" : folder + "/";
  std::vector<std::string> keys;
  for (auto it = values_.lower_bound(start); it != values_.end() && it->first.starts_with(start); ++it) keys.push_back(it->first);
  return keys;
}

std::optional<StoredValue> OcdbtStore::Find(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  const Value& value = found->second;
  return StoredValue{value.bytes, value.file ? *value.file : fs::path(), value.offset, value.length};
}

namespace {

// Gathers nodes of one level, writes them to the tree's file, and returns the entries of the level above.
class TreeWriter {
 public:
  TreeWriter(const fs::path& root, const OcdbtWriteOptions& options) : options_(options), file_(root / options.tree_file) {}

  std::vector<OcdbtChild> WriteLeaves(const std::map<std::string, OcdbtItem>& items) {
    std::vector<OcdbtChild> level;
    OcdbtNode node;
    uint64_t size = 0;
    for (const auto& [key, item] : items) {
      const uint64_t cost = key.size() + item.value.size() + 16;
      if (!node.leaves.empty() && size + cost > options_.node_bytes) {
        level.push_back(Write(node));
        node = {};
        size = 0;
      }
      node.leaves.push_back(
          {key,
           item.is_inline,
           item.value,
           {item.is_inline ? 0 : FileIndex(node, item.file), item.offset, item.is_inline ? item.value.size() : item.length}});
      size += cost;
    }
    level.push_back(Write(node));
    return level;
  }

  std::vector<OcdbtChild> WriteInterior(const std::vector<OcdbtChild>& children, int height) {
    std::vector<OcdbtChild> level;
    const size_t most = std::max<uint64_t>(2, options_.node_bytes / 128);
    for (size_t begin = 0; begin < children.size(); begin += most) {
      OcdbtNode node;
      node.height = static_cast<uint8_t>(height);
      node.files = {{"", options_.tree_file}};
      node.children.assign(children.begin() + static_cast<std::ptrdiff_t>(begin),
                           children.begin() + static_cast<std::ptrdiff_t>(std::min(begin + most, children.size())));
      level.push_back(Write(node));
    }
    return level;
  }

  void Close() { file_.Close(); }

 private:
  static uint32_t FileIndex(OcdbtNode& node, const std::string& path) {
    if (node.files.empty() || node.files.back().path != path) {
      const auto found = std::ranges::find(node.files, path, &OcdbtFile::path);
      if (found != node.files.end()) return static_cast<uint32_t>(found - node.files.begin());
      node.files.push_back({"", path});
    }
    return static_cast<uint32_t>(node.files.size() - 1);
  }

  OcdbtChild Write(const OcdbtNode& node) {
    const std::string bytes = FormatOcdbtNode(node, options_.config.zstd, options_.config.zstd_level);
    OcdbtChild child;
    child.key = node.height == 0 ? node.leaves.front().key : node.children.front().key;
    child.node = {0, at_, bytes.size()};
    for (const auto& leaf : node.leaves) child.statistics.num_indirect_value_bytes += leaf.is_inline ? 0 : leaf.span.length;
    child.statistics.num_keys = node.leaves.size();
    for (const auto& inner : node.children) {
      child.statistics.num_keys += inner.statistics.num_keys;
      child.statistics.num_tree_bytes += inner.statistics.num_tree_bytes;
      child.statistics.num_indirect_value_bytes += inner.statistics.num_indirect_value_bytes;
    }
    child.statistics.num_tree_bytes += bytes.size();
    file_.Write(bytes);
    at_ += bytes.size();
    return child;
  }

  const OcdbtWriteOptions& options_;
  OutputFile file_;
  uint64_t at_ = 0;
};

}  // namespace

void WriteOcdbtTree(const fs::path& root, const std::map<std::string, OcdbtItem>& items, const OcdbtWriteOptions& options) {
  FATHOM_CHECK(!items.empty(), "a database without keys");
  TreeWriter writer(root, options);
  int height = 0;
  std::vector<OcdbtChild> level = writer.WriteLeaves(items);
  while (level.size() > 1) level = writer.WriteInterior(level, ++height);
  writer.Close();
  OcdbtManifest manifest;
  manifest.config = options.config;
  manifest.files = {{"", options.tree_file}};
  manifest.versions = {{1, static_cast<uint8_t>(height), level[0].node, level[0].statistics, options.commit_time}};
  WriteFileAtomically(root / kOcdbtManifest, FormatOcdbtManifest(manifest));
}

}  // namespace fathom
