#include "fathom/checkpoint/orbax/ocdbt_format.h"

#include <algorithm>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/zstd.h"
#include "fathom/checkpoint/orbax/byte_stream.h"

namespace fathom {
namespace {

constexpr uint32_t kManifestMagic = 0x0cdb3a2a, kNodeMagic = 0x0cdb20de;
constexpr uint64_t kEntryBytes = 128;                // of an entry in memory, roughly, without its texts
constexpr uint64_t kFrameBytes = 4 + 8 + 1 + 1 + 4;  // magic, length, version, compression, checksum

// What a frame holds; `expanded` keeps a decompressed body alive.
class Frame {
 public:
  Frame(std::span<const std::byte> bytes, uint32_t magic, const char* kind, uint64_t max_body, const std::string& where) {
    ByteReader head(bytes, where);
    if (bytes.size() < kFrameBytes || head.U32Big() != magic) head.Fail(fmt::format("not {} (wrong magic)", kind));
    if (head.U64() != bytes.size())
      head.Fail(fmt::format("{} says another length than the {} bytes it has: truncated or damaged", kind, bytes.size()));
    const auto checked = bytes.first(bytes.size() - 4);
    if (ByteReader(bytes.last(4), where).U32() != Crc32c(checked)) head.Fail(fmt::format("checksum of {} does not match: damaged", kind));
    ByteReader body(checked.subspan(12), where);
    const uint64_t version = body.Varint(), compression = body.Varint();
    if (version != 0) body.Fail(fmt::format("{} has format version {}, known is 0", kind, version));
    if (compression > 1) body.Fail(fmt::format("{} has compression {}, known are 0 (none) and 1 (zstd)", kind, compression));
    body_ = body.rest();
    if (compression == 1) {
      expanded_ = ZstdDecompress(body_, max_body, where);
      body_ = std::as_bytes(std::span(expanded_));
    }
  }
  std::span<const std::byte> body() const { return body_; }

 private:
  std::string expanded_;
  std::span<const std::byte> body_;
};

std::string FrameBytes(uint32_t magic, std::string_view body, bool zstd, int32_t level) {
  std::string compressed;
  if (zstd) ZstdCompressor(level).Compress(std::as_bytes(std::span(body)), compressed);
  const std::string_view stored = zstd ? std::string_view(compressed) : body;
  ByteWriter out;
  out.U32Big(magic);
  out.U64(kFrameBytes + stored.size());
  out.Varint(0);
  out.Varint(zstd ? 1 : 0);
  out.Text(stored);
  out.U32(Crc32c(out.span()));
  return out.bytes();
}

// A list's number of entries, each of which will take memory.
size_t ReadCount(ByteReader& in, uint64_t budget) {
  const size_t n = in.Count();
  if (n > budget / kEntryBytes) in.Fail(fmt::format("a list of {} entries in so few bytes: damaged", n));
  return n;
}

// Prefix-compressed strings, budget bytes at most: the lengths of all, then (after what the caller reads between) the bytes of all.
class PrefixedTexts {
 public:
  PrefixedTexts(ByteReader& in, size_t n, uint64_t budget) : budget_(budget), prefixes_(1), suffixes_() {
    const auto rest = in.Varints(n > 0 ? n - 1 : 0);
    prefixes_.insert(prefixes_.end(), rest.begin(), rest.end());
    suffixes_ = in.Varints(n);
  }
  std::vector<std::string> Read(ByteReader& in) const {
    std::vector<std::string> texts(suffixes_.size());
    uint64_t total = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      const uint64_t before = i > 0 ? texts[i - 1].size() : 0;
      if (prefixes_[i] > before) in.Fail("a name shares more with the one before than that has: damaged");
      total += prefixes_[i];
      if (total > budget_) in.Fail("names become too long for so few bytes: damaged");
      if (i > 0) texts[i] = texts[i - 1].substr(0, static_cast<size_t>(prefixes_[i]));
      texts[i].append(in.TakeText(suffixes_[i]));
    }
    return texts;
  }

 private:
  uint64_t budget_;
  std::vector<uint64_t> prefixes_, suffixes_;
};

void WritePrefixed(ByteWriter& out, const std::vector<std::string_view>& texts, const auto& between) {
  std::vector<size_t> shared(texts.size());
  for (size_t i = 1; i < texts.size(); ++i) {
    shared[i] = static_cast<size_t>(std::mismatch(texts[i].begin(), texts[i].end(), texts[i - 1].begin(), texts[i - 1].end()).first -
                                    texts[i].begin());
    out.Varint(shared[i]);
  }
  for (size_t i = 0; i < texts.size(); ++i) out.Varint(texts[i].size() - shared[i]);
  between();
  for (size_t i = 0; i < texts.size(); ++i) out.Text(texts[i].substr(shared[i]));
}

// A path of a file inside the database: relative, without "..". TensorStore writes an empty one where nothing is referred to.
void CheckPath(const ByteReader& in, const std::string& path) {
  bool good = (path.empty() || path.front() != '/') && path.find('\0') == path.npos;
  for (size_t begin = 0; good && begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    good = path.compare(begin, end - begin, "..") != 0;
    begin = end + 1;
  }
  if (!good) in.Fail(fmt::format("names the data file \"{}\", which leads out of the database", path));
}

std::vector<OcdbtFile> ReadFiles(ByteReader& in, const std::string& base, uint64_t budget) {
  const size_t n = ReadCount(in, budget);
  if (n * base.size() > budget) in.Fail("names of data files become too long for so few bytes: damaged");
  const PrefixedTexts names(in, n, budget);
  const auto base_lengths = in.Varints(n);
  std::vector<OcdbtFile> files;
  const auto paths = names.Read(in);
  for (size_t i = 0; i < n; ++i) {
    if (base_lengths[i] > paths[i].size()) in.Fail("the base of a data file is longer than its name: damaged");
    files.push_back({base + paths[i].substr(0, static_cast<size_t>(base_lengths[i])), base + paths[i]});
    CheckPath(in, files.back().path);
  }
  return files;
}

void WriteFiles(ByteWriter& out, const std::vector<OcdbtFile>& files) {
  std::vector<std::string_view> paths;
  for (const OcdbtFile& file : files) paths.push_back(file.path);
  out.Varint(files.size());
  WritePrefixed(out, paths, [&] {
    for (size_t i = 0; i < files.size(); ++i) out.Varint(0);
  });
}

// Columns file, offset, length of n spans. With none_allowed a span may be nothing: offset and length all ones.
std::vector<OcdbtSpan> ReadSpans(ByteReader& in, size_t n, size_t num_files, bool none_allowed) {
  const auto file = in.Varints(n), offset = in.Varints(n), length = in.Varints(n);
  std::vector<OcdbtSpan> spans(n);
  for (size_t i = 0; i < n; ++i) {
    const bool none = offset[i] == UINT64_MAX && length[i] == UINT64_MAX;
    if (none && !none_allowed) in.Fail("an entry refers to no node: damaged");
    if (!none && file[i] >= num_files) in.Fail(fmt::format("names data file {} of {}: damaged", file[i], num_files));
    spans[i] = {none ? 0 : static_cast<uint32_t>(file[i]), offset[i], length[i]};
  }
  return spans;
}

std::vector<OcdbtStatistics> ReadStatistics(ByteReader& in, size_t n) {
  const auto keys = in.Varints(n), tree = in.Varints(n), indirect = in.Varints(n);
  std::vector<OcdbtStatistics> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = {keys[i], tree[i], indirect[i]};
  return out;
}

template <class T>
void WriteSpans(ByteWriter& out, const std::vector<T>& items, OcdbtSpan T::*span) {
  for (const T& item : items) out.Varint((item.*span).file);
  for (const T& item : items) out.Varint((item.*span).offset);
  for (const T& item : items) out.Varint((item.*span).length);
}

template <class T>
void WriteStatistics(ByteWriter& out, const std::vector<T>& items) {
  for (const T& item : items) out.Varint(item.statistics.num_keys);
  for (const T& item : items) out.Varint(item.statistics.num_tree_bytes);
  for (const T& item : items) out.Varint(item.statistics.num_indirect_value_bytes);
}

std::vector<OcdbtVersion> ReadVersions(ByteReader& in, size_t num_files) {
  const size_t n = in.Count();
  const auto generations = in.Varints(n);
  const auto heights = in.U8s(n);
  const auto spans = ReadSpans(in, n, num_files, true);
  const auto statistics = ReadStatistics(in, n);
  const auto times = in.U64s(n);
  std::vector<OcdbtVersion> versions(n);
  for (size_t i = 0; i < n; ++i) {
    versions[i] = {generations[i], heights[i], spans[i], statistics[i], times[i]};
    if (versions[i].empty() && (heights[i] > 0 || statistics[i].num_keys > 0))
      in.Fail(fmt::format("version {} of height {} with {} keys has no root: damaged", generations[i], heights[i], statistics[i].num_keys));
  }
  return versions;
}

// Where nodes with older versions lie, which nothing reads: generation, file, offset, length, count, time, height.
void SkipOlder(ByteReader& in) {
  const size_t n = in.Count();
  for (int column = 0; column < 5; ++column) in.Varints(n);
  in.U64s(n);
  in.U8s(n);
}

OcdbtConfig ReadConfig(ByteReader& in) {
  OcdbtConfig config;
  std::ranges::copy(in.Take(16), config.uuid.begin());
  if (const uint64_t kind = in.Varint(); kind != 0)
    in.Fail(fmt::format("manifest kind {}; only a single manifest (0) is understood", kind));
  config.max_inline_value_bytes = in.Varint();
  config.max_decoded_node_bytes = in.Varint();
  config.version_tree_arity_log2 = in.U8();
  const uint64_t compression = in.Varint();
  if (compression > 1) in.Fail(fmt::format("compression method {}, known are 0 (none) and 1 (zstd)", compression));
  config.zstd = compression == 1;
  if (config.zstd) config.zstd_level = static_cast<int32_t>(in.U32());
  return config;
}

void WriteConfig(ByteWriter& out, const OcdbtConfig& config) {
  out.Text({reinterpret_cast<const char*>(config.uuid.data()), config.uuid.size()});
  out.Varint(0);
  out.Varint(config.max_inline_value_bytes);
  out.Varint(config.max_decoded_node_bytes);
  out.U8(config.version_tree_arity_log2);
  out.Varint(config.zstd ? 1 : 0);
  if (config.zstd) out.U32(static_cast<uint32_t>(config.zstd_level));
}

template <class T>
void CheckAscending(const ByteReader& in, const std::vector<T>& entries) {
  const auto wrong = std::adjacent_find(entries.begin(), entries.end(), [](const T& a, const T& b) { return a.key >= b.key; });
  if (wrong != entries.end()) in.Fail("keys are not in ascending order: damaged");
}

std::vector<OcdbtLeafEntry> ReadLeaves(ByteReader& in, size_t n, size_t num_files, uint64_t budget) {
  const auto keys = PrefixedTexts(in, n, budget).Read(in);
  const auto lengths = in.Varints(n), kinds = in.Varints(n);
  if (std::ranges::any_of(kinds, [](uint64_t kind) { return kind > 1; })) in.Fail("a value that is neither inline nor in a file: damaged");
  const auto indirect = static_cast<size_t>(std::ranges::count(kinds, 1));
  const auto files = in.Varints(indirect), offsets = in.Varints(indirect);
  std::vector<OcdbtLeafEntry> entries(n);
  for (size_t i = 0, at = 0; i < n; ++i) {
    entries[i] = {keys[i], kinds[i] == 0, "", {0, 0, lengths[i]}};
    if (kinds[i] == 0) {
      entries[i].value = in.TakeText(lengths[i]);
      continue;
    }
    if (files[at] >= num_files) in.Fail(fmt::format("value of {} lies in data file {} of {}: damaged", keys[i], files[at], num_files));
    entries[i].span = {static_cast<uint32_t>(files[at]), offsets[at], lengths[i]};
    ++at;
  }
  CheckAscending(in, entries);
  return entries;
}

std::vector<OcdbtChild> ReadChildren(ByteReader& in, size_t n, size_t num_files, uint64_t budget) {
  const PrefixedTexts texts(in, n, budget);
  const auto common = in.Varints(n);
  const auto keys = texts.Read(in);
  const auto spans = ReadSpans(in, n, num_files, false);
  const auto statistics = ReadStatistics(in, n);
  std::vector<OcdbtChild> children(n);
  for (size_t i = 0; i < n; ++i) {
    if (common[i] > keys[i].size()) in.Fail("a child shares more than its key: damaged");
    children[i] = {keys[i], common[i], spans[i], statistics[i]};
  }
  CheckAscending(in, children);
  return children;
}

void WriteLeaves(ByteWriter& out, const std::vector<OcdbtLeafEntry>& entries) {
  for (const auto& entry : entries) out.Varint(entry.is_inline ? entry.value.size() : entry.span.length);
  for (const auto& entry : entries) out.Varint(entry.is_inline ? 0 : 1);
  for (const auto& entry : entries)
    if (!entry.is_inline) out.Varint(entry.span.file);
  for (const auto& entry : entries)
    if (!entry.is_inline) out.Varint(entry.span.offset);
  for (const auto& entry : entries)
    if (entry.is_inline) out.Text(entry.value);
}

template <class T>
std::vector<std::string_view> Keys(const std::vector<T>& entries) {
  std::vector<std::string_view> keys;
  for (const T& entry : entries) keys.push_back(entry.key);
  return keys;
}

}  // namespace

uint64_t OcdbtBudget(uint64_t stored) { return (16 << 20) + 128 * stored; }

uint64_t OcdbtCost(const OcdbtNode& node, size_t prefix) {
  uint64_t cost = 0;
  for (const OcdbtFile& file : node.files) cost += kEntryBytes + file.base.size() + file.path.size();
  for (const OcdbtLeafEntry& leaf : node.leaves) cost += kEntryBytes + prefix + leaf.key.size() + leaf.value.size();
  for (const OcdbtChild& child : node.children) cost += kEntryBytes + child.key.size();
  return cost;
}

OcdbtManifest ParseOcdbtManifest(std::span<const std::byte> bytes, const std::string& where) {
  const uint64_t budget = OcdbtBudget(bytes.size());
  const Frame frame(bytes, kManifestMagic, "an OCDBT manifest", budget, where);
  ByteReader in(frame.body(), where);
  OcdbtManifest manifest;
  manifest.config = ReadConfig(in);
  manifest.files = ReadFiles(in, "", budget);
  manifest.versions = ReadVersions(in, manifest.files.size());
  SkipOlder(in);
  in.CheckAllRead();
  if (manifest.versions.empty()) in.Fail("the manifest lists no version: damaged");
  return manifest;
}

OcdbtNode ParseOcdbtNode(std::span<const std::byte> bytes, const std::string& base, uint64_t budget, const std::string& where) {
  const Frame frame(bytes, kNodeMagic, "an OCDBT B+tree node", budget, where);
  ByteReader in(frame.body(), where);
  OcdbtNode node;
  node.height = in.U8();
  node.files = ReadFiles(in, base, budget);
  const size_t n = ReadCount(in, budget);
  if (n == 0) in.Fail("a node without entries: damaged");
  if (node.height == 0) node.leaves = ReadLeaves(in, n, node.files.size(), budget);
  if (node.height > 0) node.children = ReadChildren(in, n, node.files.size(), budget);
  in.CheckAllRead();
  return node;
}

std::string FormatOcdbtManifest(const OcdbtManifest& manifest) {
  ByteWriter out;
  WriteConfig(out, manifest.config);
  WriteFiles(out, manifest.files);
  out.Varint(manifest.versions.size());
  for (const auto& version : manifest.versions) out.Varint(version.generation);
  for (const auto& version : manifest.versions) out.U8(version.root_height);
  WriteSpans(out, manifest.versions, &OcdbtVersion::root);
  WriteStatistics(out, manifest.versions);
  for (const auto& version : manifest.versions) out.U64(version.commit_time);
  out.Varint(0);
  return FrameBytes(kManifestMagic, out.bytes(), false, 0);
}

std::string FormatOcdbtNode(const OcdbtNode& node, bool zstd, int32_t zstd_level) {
  ByteWriter out;
  out.U8(node.height);
  WriteFiles(out, node.files);
  const bool leaf = node.height == 0;
  const auto keys = leaf ? Keys(node.leaves) : Keys(node.children);
  out.Varint(keys.size());
  WritePrefixed(out, keys, [&] {
    for (const auto& child : node.children) out.Varint(child.common_prefix);
  });
  if (leaf) {
    WriteLeaves(out, node.leaves);
  } else {
    WriteSpans(out, node.children, &OcdbtChild::node);
    WriteStatistics(out, node.children);
  }
  return FrameBytes(kNodeMagic, out.bytes(), zstd, zstd_level);
}

}  // namespace fathom
