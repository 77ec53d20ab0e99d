// OCDBT nodes of any content: an Error, or a node whose references lie in its own table and whose paths stay inside the database. The first
// byte chooses the kind; for most of them the rest is a body, put into a frame whose length and checksum are right, which no fuzzer would
// guess.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/checkpoint/orbax/byte_stream.h"
#include "fathom/checkpoint/orbax/ocdbt_format.h"

namespace {

using namespace fathom;

constexpr uint64_t kBudget = 1 << 20;

void Require(bool condition) {
  if (!condition) std::abort();
}

std::string Framed(uint32_t magic, bool zstd, std::string_view body) {
  ByteWriter out;
  out.U32Big(magic);
  out.U64(4 + 8 + 1 + 1 + body.size() + 4);
  out.Varint(0);
  out.Varint(zstd ? 1 : 0);
  out.Text(body);
  out.U32(Crc32c(out.span()));
  return out.bytes();
}

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

void RequirePaths(const std::vector<OcdbtFile>& files) {
  for (const OcdbtFile& file : files) {
    const std::string slashed = "/" + file.path + "/";
    Require(!file.path.starts_with('/') && slashed.find("/../") == slashed.npos && file.path.starts_with(file.base));
  }
}

void UseManifest(const std::string& bytes) {
  const OcdbtManifest manifest = ParseOcdbtManifest(Bytes(bytes), "manifest");
  RequirePaths(manifest.files);
  Require(!manifest.versions.empty());
  for (const auto& version : manifest.versions)
    Require(version.empty() ? version.root_height == 0 && version.statistics.num_keys == 0 : version.root.file < manifest.files.size());
}

// What can be written is read back as it was.
void RequireWritable(OcdbtNode node, const std::string& base) {
  if (!base.empty()) return;
  std::ranges::for_each(node.files, [](OcdbtFile& file) { file.base.clear(); });
  const std::string once = FormatOcdbtNode(node, false, 0);
  Require(FormatOcdbtNode(ParseOcdbtNode(Bytes(once), "", kBudget, "again"), false, 0) == once);
}

void UseNode(const std::string& bytes, const std::string& base) {
  const OcdbtNode node = ParseOcdbtNode(Bytes(bytes), base, kBudget, "node");
  RequirePaths(node.files);
  for (const auto& leaf : node.leaves) Require(leaf.is_inline ? leaf.value.size() == leaf.span.length : leaf.span.file < node.files.size());
  for (const auto& child : node.children) {
    Require(child.node.file < node.files.size());
    Require(child.common_prefix <= child.key.size());
  }
  Require(std::ranges::is_sorted(node.leaves, {}, &OcdbtLeafEntry::key) && std::ranges::is_sorted(node.children, {}, &OcdbtChild::key));
  RequireWritable(node, base);
}

void Use(uint8_t kind, std::string_view rest) {
  constexpr uint32_t kManifest = 0x0cdb3a2a, kNode = 0x0cdb20de;
  const bool zstd = kind & 8;
  switch (kind & 7) {
    case 0:
      return UseManifest(std::string(rest));
    case 1:
      return UseNode(std::string(rest), "");
    case 3:
      return UseManifest(Framed(kManifest, zstd, rest));
    case 4:
      return UseNode(Framed(kNode, zstd, rest), "");
    default:
      return UseNode(Framed(kNode, zstd, rest), "d/");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  try {
    Use(data[0], {reinterpret_cast<const char*>(data) + 1, size - 1});
  } catch (const Error& e) {
    Require(e.code() == ErrorCode::kInput);
  }
  return 0;
}
