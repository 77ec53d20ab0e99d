// The tensors of a folder in the Hugging Face layout: model.safetensors, or shards and model.safetensors.index.json.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/checkpoint/safetensors/safetensors.h"

namespace fathom {

inline constexpr const char* kSingleFile = "model.safetensors";
inline constexpr const char* kIndexFile = "model.safetensors.index.json";
inline constexpr std::string_view kScaleSuffix = "_scale_inv";  // weight "x.weight" has its scales in "x.weight_scale_inv"

// model.safetensors or model-00001-of-00003.safetensors: what belongs to the model; other files may lie beside it.
bool IsModelFile(const std::string& name);

// A block FP8 matrix of this shape has scales [ceil(N/128), ceil(K/128)].
Shape ScaleShape(const Shape& weight);

class TensorFolder {
 public:
  // Maps every file and checks that files and index agree. Throws Error(kInput), naming the file and the tensor: no such folder, neither
  // file nor index, a broken file, an index that names an absent file, a path outside the folder, or a tensor that its file lacks; a tensor
  // or a shard that the index lacks; a tensor in two files.
  static TensorFolder Open(const std::filesystem::path& dir);

  const std::filesystem::path& dir() const { return dir_; }
  const std::vector<std::string>& names() const { return names_; }  // by file, then by position in it
  int64_t NumBytes() const;                                         // of all tensors
  bool Has(std::string_view name) const { return Find(name) != nullptr; }
  const TensorEntry* Find(std::string_view name) const;  // nullptr: absent
  // The file that holds it; throws Error(kInput) if absent.
  const SafetensorsFile& FileOf(std::string_view name) const;
  const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const { return files_; }

  // Mapped. Throws Error(kInput) if absent.
  Tensor Get(std::string_view name) const;
  // With its scales if it is FP8. Throws Error(kInput): absent; FP8 without scales; scales of another dtype (F32, F8_E8M0 or its bytes as
  // U8 are allowed; the latter comes as F8_E8M0) or shape.
  Weight GetWeight(std::string_view name) const;
  // Tells the kernel that the bytes of this tensor will not be needed again soon.
  void DropPages(std::string_view name) const;

 protected:
  TensorFolder() = default;

 private:
  struct Place {
    size_t file;
    const TensorEntry* entry;
  };
  void Add(std::shared_ptr<const SafetensorsFile> file);
  void OpenIndexed(const std::map<std::string, std::string>& weight_map);
  const Place& PlaceOf(std::string_view name) const;

  std::filesystem::path dir_;
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::vector<std::string> names_;
  std::map<std::string, Place, std::less<>> places_;
};

// The weight_map of an index: tensor to file. Throws Error(kInput), naming `where`: not JSON, no weight_map, a file name that is empty or
// has a folder in it.
std::map<std::string, std::string> ParseIndex(std::string_view text, const std::string& where);

}  // namespace fathom
