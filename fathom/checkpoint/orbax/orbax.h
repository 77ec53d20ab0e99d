// An Orbax checkpoint as MaxText writes it: where it lies, its arrays, the model's parameters under the hub's names.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fathom/checkpoint/orbax/maxtext_names.h"
#include "fathom/checkpoint/orbax/zarr.h"

namespace fathom {

// The folder with the arrays that `path` stands for: itself, <path>/items, or <path>/<step>/items for the highest step; nullopt if it is
// none.
std::optional<std::filesystem::path> FindOrbaxItems(const std::filesystem::path& path);

// config.json beside items or up to two folders above it.
std::optional<std::filesystem::path> FindConfigNear(const std::filesystem::path& items);

// What fathom keeps in custom_metadata of _CHECKPOINT_METADATA, beside "scan_layers".
inline constexpr const char* kSharedCopies = "hub_shared_copies";  // whether the hub's checkpoint had copies of embedding and head
inline constexpr const char* kTrainState = "train_state";          // SourceState::OwnValues

class OrbaxCheckpoint {
 public:
  // Throws Error(kInput): no checkpoint, damaged metadata or database, arrays that do not look like MaxText's.
  OrbaxCheckpoint(const std::filesystem::path& items, std::shared_ptr<ChunkCache> cache);

  const std::filesystem::path& items() const { return items_; }
  const std::vector<std::string>& names() const { return names_; }  // of all arrays
  bool Has(const std::string& name) const;
  ZarrReader Open(const std::string& name) const { return ZarrReader(store_, name, cache_); }

  bool scanned() const { return scanned_; }
  int64_t num_mtp_modules() const { return num_mtp_modules_; }
  // "params.params.": what stands before "token_embedder.embedding".
  const std::string& prefix() const { return prefix_; }
  // The array `below` the prefix; of what is learned by counting, also where a training state of MaxText keeps it.
  std::optional<std::string> FindParameter(ParamRole role, const std::string& below) const;
  const Json& custom() const { return custom_; }  // custom_metadata, an object; empty if there is none
  // "opt_state.0.": what stands before "mu.params.token_embedder.embedding" in a training state of AdamW; empty: there is none.
  const std::string& optimizer() const { return optimizer_; }
  // A scalar of whole numbers. Throws Error(kInput): absent, or another kind of array.
  int64_t ReadNumber(const std::string& name) const;

 private:
  std::filesystem::path items_;
  std::shared_ptr<const KeyStore> store_;
  std::shared_ptr<ChunkCache> cache_;
  std::vector<std::string> names_;
  std::string prefix_, optimizer_;
  bool scanned_ = false;
  Json custom_;
  int64_t num_mtp_modules_ = 0;
};

// What Orbax needs beside the arrays. Leaves: names joined with dots as they stand in the store. Throw Error(kResource).
struct OrbaxLeaf {
  std::string name;
  std::string value_type = "jax.Array";  // "scalar" for a Python number, "None" for a slot without data
};
// items/_METADATA.
std::string FormatOrbaxMetadata(const std::vector<OrbaxLeaf>& leaves, bool ocdbt, bool zarr3);
// <step>/_CHECKPOINT_METADATA; time in ns since 1970.
std::string FormatCheckpointMetadata(uint64_t time, const Json& custom);

}  // namespace fathom
