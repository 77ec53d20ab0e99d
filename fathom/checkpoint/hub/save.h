// The pieces of a model saved in the Hugging Face layout.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "fathom/base/json.h"
#include "fathom/checkpoint/safetensors/safetensors.h"

namespace fathom {

// What is saved under which name, with the view's dtype and shape. Rows may be strided.
struct NamedTensor {
  std::string name;
  ConstView value;
};

// A tensor of which this process has a part to save, or none: other processes save the rest of it.
struct SavedTensor {
  TensorInfo info;              // of the whole
  ConstView part = {};          // empty: nothing to write
  int64_t row = 0, column = 0;  // where the part begins

  explicit SavedTensor(TensorInfo whole) : info(std::move(whole)) {}
  SavedTensor(std::string name, ConstView whole) : info{std::move(name), whole.dtype(), whole.shape()}, part(whole) {}
  SavedTensor(const NamedTensor& whole) : SavedTensor(whole.name, whole.value) {}
};

// The processes that save one folder together.
struct SaveRanks {
  bool first = true;           // the one that makes the folder, its headers and small files, and gives it its name
  std::function<void()> meet;  // returns when all of them have called it; empty: this one is alone
};

struct SaveOptions {
  int64_t max_shard_size = 5'000'000'000;         // bytes of a file; a tensor larger than this has a file of its own
  std::vector<std::filesystem::path> companions;  // small files that are copied
  bool overwrite = false;                         // replace an existing folder
  bool adapter = false;                           // a PEFT folder: adapter_config.json and adapter_model.safetensors
};

// Tensors (by index, in order) of each file.
std::vector<std::vector<size_t>> PlanShards(const std::vector<TensorInfo>& tensors, int64_t max_shard_size);
// "model.safetensors" for one file, "model-00002-of-00007.safetensors" for i = 1 of 7.
std::string ShardFileName(size_t i, size_t count);
// The content of model.safetensors.index.json.
Json IndexJson(const std::vector<TensorInfo>& tensors, const std::vector<std::vector<size_t>>& shards);
// Writes these tensors, index and config.json into an existing folder, each file synced.
void WriteModelFiles(const std::filesystem::path& dir, const Json& config, const std::vector<NamedTensor>& tensors, int64_t max_shard_size);
// One safetensors file of a folder.
struct TensorFile {
  std::string name;
  std::vector<SavedTensor> tensors;
};
// Those of a model's tensors.
std::vector<TensorFile> ModelTensorFiles(const std::vector<SavedTensor>& tensors, int64_t max_shard_size);
// Writes what `share` says of these files into an existing folder, each synced.
void WriteTensorFiles(const std::filesystem::path& dir, const std::vector<TensorFile>& files, SafetensorsWriter::Share share);
// The index, if there are several such files, and config.json.
void WriteModelJson(const std::filesystem::path& dir, const Json& config, const std::vector<SavedTensor>& tensors, int64_t max_shard_size);
// The two files of an adapter (hub/peft.h).
inline constexpr const char* kAdapterConfig = "adapter_config.json";
inline constexpr const char* kAdapterFile = "adapter_model.safetensors";
// Tokenizer, templates, generation_config.json, licence and code: small files that are no tensors, index or config.json. Throws
// Error(kInput).
std::vector<std::filesystem::path> CompanionFiles(const std::filesystem::path& dir);
// Those of them that a Hugging Face checkpoint has: a folder that a user names as the tokenizer's may hold anything else. Throws
// Error(kInput).
std::vector<std::filesystem::path> HubCompanionFiles(const std::filesystem::path& dir);
// Copies and syncs what CompanionFiles finds.
void CopyCompanions(const std::filesystem::path& from, const std::filesystem::path& to);
// Copies and syncs files. Throws Error(kInput), Error(kResource).
void CopyFiles(const std::vector<std::filesystem::path>& files, const std::filesystem::path& to);

}  // namespace fathom
