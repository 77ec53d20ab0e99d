// Manifest and nodes of an OCDBT database (TensorStore's "optionally-cooperative distributed B+tree"), bytes to structs and back.
// Every node is framed: magic u32 big endian, length of the whole u64, version varint 0, compression varint (0 none, 1 zstd), body,
// CRC-32C of all before it. Columns of a table are stored one after the other. All parsers throw Error(kInput) naming `where`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace fathom {

// A data file as a node names it: `base` is prepended to the paths in the table of the node that is read through it.
struct OcdbtFile {
  std::string base, path;  // path includes base; relative to the database's folder, never leading out of it
};

// Bytes of a data file.
struct OcdbtSpan {
  uint32_t file = 0;  // index into the node's table
  uint64_t offset = 0, length = 0;
};

struct OcdbtStatistics {
  uint64_t num_keys = 0, num_tree_bytes = 0, num_indirect_value_bytes = 0;
};

// One state of the database. An empty one has no root (offset and length all ones).
struct OcdbtVersion {
  uint64_t generation = 0;
  uint8_t root_height = 0;
  OcdbtSpan root;
  OcdbtStatistics statistics;
  uint64_t commit_time = 0;  // ns since 1970
  bool empty() const { return root.offset == UINT64_MAX && root.length == UINT64_MAX; }
};

struct OcdbtConfig {
  std::array<std::byte, 16> uuid{};
  uint64_t max_inline_value_bytes = 1024, max_decoded_node_bytes = 100'000'000;
  uint8_t version_tree_arity_log2 = 4;
  bool zstd = false;
  int32_t zstd_level = 0;
};

struct OcdbtManifest {
  OcdbtConfig config;
  std::vector<OcdbtFile> files;
  std::vector<OcdbtVersion> versions;  // by generation; the newest is last. Older ones may lie in nodes of their own, which nothing reads
};

// Entry of a leaf: the value itself, or where it lies.
struct OcdbtLeafEntry {
  std::string key;
  bool is_inline = true;
  std::string value;
  OcdbtSpan span;
};

// Entry of an interior node: keys of the child get the first common_prefix bytes of `key` prepended.
struct OcdbtChild {
  std::string key;
  uint64_t common_prefix = 0;
  OcdbtSpan node;
  OcdbtStatistics statistics;
};

struct OcdbtNode {
  uint8_t height = 0;
  std::vector<OcdbtFile> files;
  std::vector<OcdbtLeafEntry> leaves;  // height 0, keys ascending
  std::vector<OcdbtChild> children;    // height > 0, keys ascending
};

// What `stored` bytes of manifest or nodes may become in memory: bodies are compressed and names share their beginnings, so a small file
// could ask for any amount. Real trees need a tenth of it.
uint64_t OcdbtBudget(uint64_t stored);
// Of it, what the parsed node takes, under keys with a prefix of this length.
uint64_t OcdbtCost(const OcdbtNode& node, size_t prefix);

// budget bounds what a compressed body expands to, the names and the number of entries, each. base: of the file through which the node was
// read.
OcdbtManifest ParseOcdbtManifest(std::span<const std::byte> bytes, const std::string& where);
OcdbtNode ParseOcdbtNode(std::span<const std::byte> bytes, const std::string& base, uint64_t budget, const std::string& where);

// Nodes whose files all have an empty base.
std::string FormatOcdbtManifest(const OcdbtManifest& manifest);
std::string FormatOcdbtNode(const OcdbtNode& node, bool zstd, int32_t zstd_level);

}  // namespace fathom
