// A manifest: the hash of every tensor of a checkpoint, so that a flipped byte can be named later. It does not depend on the shards.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "fathom/checkpoint/safetensors/safetensors.h"

namespace fathom {

// XXH3, 64 bits, over bytes that come in pieces.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  void Update(std::span<const std::byte> bytes);
  std::string Hex() const;  // 16 digits

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct ManifestEntry {
  std::string dtype, shape, hash;  // "BF16", "[2, 3]", 16 hex digits
  friend bool operator==(const ManifestEntry&, const ManifestEntry&) = default;
};
using Manifest = std::map<std::string, ManifestEntry>;

// Throws Error(kInput): unreadable, not a manifest.
Manifest ReadManifest(const std::filesystem::path& path);
// Throws Error(kResource).
void WriteManifest(const std::filesystem::path& path, const Manifest& manifest);

}  // namespace fathom
