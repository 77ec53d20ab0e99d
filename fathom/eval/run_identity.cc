#include "fathom/eval/run_identity.h"

#include <algorithm>
#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/checkpoint/safetensors/manifest.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

bool Decides(const fs::path& file) {
  constexpr std::string_view kNames[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                                         "adapter_config.json"};
  return file.extension() == ".safetensors" || std::ranges::count(kNames, file.filename().string()) > 0;
}

std::vector<fs::path> FilesOf(const fs::path& path) {
  if (!fs::exists(path)) Throw(ErrorCode::kInput, "{}: no such file or folder", path.string());
  if (!fs::is_directory(path)) return {path};
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
    if (entry.is_regular_file() && Decides(entry.path())) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

Json IdentityOf(const fs::path& file, bool by_content) {
  Json json = {{"name", file.filename().string()}, {"size", fs::file_size(file)}};
  if (!by_content) {
    json["changed"] = fs::last_write_time(file).time_since_epoch().count();
    return json;
  }
  Hasher hasher;
  hasher.Update(MappedFile::Open(file)->bytes());
  json["hash"] = hasher.Hex();
  return json;
}

}  // namespace

Json FilesIdentity(std::span<const fs::path> paths, bool by_content) {
  Json json = Json::array();
  for (const fs::path& path : paths) {
    for (const fs::path& file : FilesOf(path)) json.push_back(IdentityOf(file, by_content));
  }
  return json;
}

}  // namespace fathom
