#include "fathom/checkpoint/safetensors/tensor_folder.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <set>
#include <thread>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/base/threads.h"

namespace fathom {
namespace {

bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos && name.find('\0') == name.npos;
}

bool Exists(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

std::vector<std::string> ModelFiles(const std::filesystem::path& dir) {
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (IsModelFile(name)) names.push_back(name);
  }
  if (error) Throw(ErrorCode::kInput, "{}: cannot read this folder: {}", dir.string(), error.message());
  std::ranges::sort(names);
  return names;
}

// Threads that read headers at the same time: what takes long is waiting for a disk or another machine's, so they are not OpenMP's.
constexpr size_t kOpeners = 8;

// Opened side by side; of several that cannot be, the first one's error is thrown.
std::vector<std::shared_ptr<const SafetensorsFile>> OpenFiles(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::shared_ptr<const SafetensorsFile>> files(paths.size());
  std::vector<std::exception_ptr> errors(paths.size());
  std::atomic<size_t> next = 0;
  const auto open_some = [&] {
    for (size_t i = next++; i < paths.size(); i = next++) {
      try {
        files[i] = SafetensorsFile::Open(paths[i]);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> openers;
    for (size_t t = 1; t < std::min(kOpeners, paths.size()); ++t) {
      openers.emplace_back([&] {
        UnbindThread();
        open_some();
      });
    }
    open_some();
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  return files;
}

}  // namespace

bool IsModelFile(const std::string& name) {
  return name == kSingleFile || (name.starts_with("model-") && name.find("-of-") != name.npos && name.ends_with(".safetensors"));
}

Shape ScaleShape(const Shape& weight) {
  FATHOM_CHECK(weight.rank() == 2);
  return {(weight[0] + kScaleBlock - 1) / kScaleBlock, (weight[1] + kScaleBlock - 1) / kScaleBlock};
}

std::map<std::string, std::string> ParseIndex(std::string_view text, const std::string& where) {
  const Json json = ParseJson(text, where, 8);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    Throw(ErrorCode::kInput, "{}: no weight_map in it", where);
  std::map<std::string, std::string> weight_map;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (!file.is_string() || !IsPlainFileName(file.get_ref<const std::string&>())) {
      Throw(ErrorCode::kInput, "{}: tensor {}: {} is not the name of a file in this folder", where, tensor, file.dump(-1, ' ', true));
    }
    weight_map[tensor] = file.get<std::string>();
  }
  return weight_map;
}

TensorFolder TensorFolder::Open(const std::filesystem::path& dir) {
  TensorFolder folder;
  folder.dir_ = dir;
  const std::vector<std::string> present = ModelFiles(dir);
  const auto index = dir / kIndexFile;
  if (Exists(index)) {
    folder.OpenIndexed(ParseIndex(ReadTextFile(index), index.string()));
  } else if (present == std::vector<std::string>{kSingleFile}) {
    folder.Add(SafetensorsFile::Open(dir / kSingleFile));
  } else if (present.empty()) {
    Throw(ErrorCode::kInput, "{}: neither {} nor {} in this folder", dir.string(), kSingleFile, kIndexFile);
  } else {
    Throw(ErrorCode::kInput, "{}: {} model files ({} ...) but no {} that says what they hold", dir.string(), present.size(), present[0],
          kIndexFile);
  }
  for (const std::string& name : present) {
    const bool open = std::ranges::any_of(folder.files_, [&](const auto& file) { return file->path().filename() == name; });
    if (!open) Throw(ErrorCode::kInput, "{}: {} lies there but {} does not name it; remove one of them", dir.string(), name, kIndexFile);
  }
  return folder;
}

void TensorFolder::OpenIndexed(const std::map<std::string, std::string>& weight_map) {
  std::set<std::string> files;
  for (const auto& [tensor, file] : weight_map) {
    if (files.insert(file).second && !Exists(dir_ / file)) {
      Throw(ErrorCode::kInput, "{}: {} says that {} lies in {}, which is not there", dir_.string(), kIndexFile, tensor, file);
    }
  }
  std::vector<std::filesystem::path> paths;
  for (const std::string& file : files) paths.push_back(dir_ / file);
  for (auto& file : OpenFiles(paths)) Add(std::move(file));
  for (const auto& [tensor, file] : weight_map) {
    const TensorEntry* entry = Find(tensor);
    if (entry == nullptr || FileOf(tensor).path().filename() != file) {
      Throw(ErrorCode::kInput, "{}: tensor {} is not in it, though {} says so", (dir_ / file).string(), tensor, kIndexFile);
    }
  }
  for (const std::string& name : names_) {
    if (!weight_map.contains(name))
      Throw(ErrorCode::kInput, "{}: tensor {} is in it, but {} does not name it", FileOf(name).path().string(), name, kIndexFile);
  }
}

void TensorFolder::Add(std::shared_ptr<const SafetensorsFile> file) {
  files_.push_back(std::move(file));
  for (const TensorEntry& entry : files_.back()->entries()) {
    const auto [it, added] = places_.try_emplace(entry.name, Place{files_.size() - 1, &entry});
    if (!added) {
      Throw(ErrorCode::kInput, "{}: tensor {} is also in {}", files_.back()->path().string(), entry.name,
            files_[it->second.file]->path().filename().string());
    }
    names_.push_back(entry.name);
  }
}

int64_t TensorFolder::NumBytes() const {
  int64_t bytes = 0;
  for (const auto& [name, place] : places_) bytes += place.entry->NumBytes();
  return bytes;
}

const TensorEntry* TensorFolder::Find(std::string_view name) const {
  const auto it = places_.find(name);
  return it == places_.end() ? nullptr : it->second.entry;
}

const TensorFolder::Place& TensorFolder::PlaceOf(std::string_view name) const {
  const auto it = places_.find(name);
  if (it == places_.end()) Throw(ErrorCode::kInput, "{}: tensor {} is missing", dir_.string(), name);
  return it->second;
}

const SafetensorsFile& TensorFolder::FileOf(std::string_view name) const { return *files_[PlaceOf(name).file]; }

Tensor TensorFolder::Get(std::string_view name) const {
  const Place& place = PlaceOf(name);
  return files_[place.file]->Get(*place.entry);
}

void TensorFolder::DropPages(std::string_view name) const {
  const Place& place = PlaceOf(name);
  files_[place.file]->file().DropPages(place.entry->begin, place.entry->end - place.entry->begin);
}

Weight TensorFolder::GetWeight(std::string_view name) const {
  Weight weight{Get(name), {}};
  if (weight.value.dtype() != DType::kF8E4M3) return weight;
  const std::string where = FileOf(name).path().string(), scale_name = std::string(name) + std::string(kScaleSuffix);
  if (weight.value.shape().rank() != 2) {
    Throw(ErrorCode::kInput, "{}: tensor {} is F8_E4M3 {}; only matrices can have block scales", where, name,
          weight.value.shape().ToString());
  }
  if (!Has(scale_name)) Throw(ErrorCode::kInput, "{}: tensor {} is F8_E4M3 but {} is missing", where, name, scale_name);
  const Tensor scale = Get(scale_name);
  const Shape expected = ScaleShape(weight.value.shape());
  if (scale.shape() != expected) {
    Throw(ErrorCode::kInput, "{}: tensor {} is {}, expected {} for a weight {}", FileOf(scale_name).path().string(), scale_name,
          scale.shape().ToString(), expected.ToString(), weight.value.shape().ToString());
  }
  if (scale.dtype() != DType::kF32 && scale.dtype() != DType::kF8E8M0 && scale.dtype() != DType::kU8) {
    Throw(ErrorCode::kInput, "{}: tensor {} is {}, scales must be F32 or F8_E8M0", FileOf(scale_name).path().string(), scale_name,
          DTypeName(scale.dtype()));
  }
  weight.scale_inv = scale;
  if (scale.dtype() == DType::kU8) {
    const auto owner = std::make_shared<const Tensor>(scale);
    weight.scale_inv = Tensor(owner, ConstView(scale.view().raw(), DType::kF8E8M0, scale.shape()));
  }
  return weight;
}

}  // namespace fathom
