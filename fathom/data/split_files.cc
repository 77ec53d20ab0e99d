#include "fathom/data/split_files.h"

#include <algorithm>
#include <utility>

#include "fathom/base/error.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

bool IsData(const fs::path& path) {
  if (path.filename().native().starts_with(".") || !fs::is_regular_file(path)) return false;
  const std::string ending = path.extension() == ".zst" ? path.stem().extension() : path.extension();
  return ending == ".parquet" || ending == ".jsonl" || ending == ".json" || ending == ".ndjson";
}

std::vector<fs::path> DataIn(const fs::path& folder) {
  std::vector<fs::path> files;
  if (!fs::is_directory(folder)) return files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (IsData(entry.path())) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

std::vector<fs::path> SplitIn(const fs::path& folder, const std::string& split) {
  std::vector<fs::path> exact, begins;
  for (const fs::path& file : DataIn(folder)) {
    const std::string name = file.filename();
    if (!name.starts_with(split)) continue;
    begins.push_back(file);
    if (name[split.size()] == '-' || name[split.size()] == '.') exact.push_back(file);
  }
  if (!exact.empty()) return exact;
  const std::vector<fs::path> inside = DataIn(folder / split);
  return inside.empty() ? begins : inside;
}

// Where the split is looked for.
std::vector<fs::path> Folders(const HubData& data) {
  const fs::path folder = data.path;
  for (const auto& [flag, below] : {std::pair("hf_data_dir", data.data_dir), std::pair("hf_name", data.name)}) {
    if (below.empty()) continue;
    if (fs::is_directory(folder / below)) return {folder / below};
    Throw(ErrorCode::kInput, "{}={}: there is no such folder in hf_path={}", flag, below, data.path);
  }
  return {folder, folder / "data"};
}

}  // namespace

std::vector<fs::path> FindSplitFiles(const HubData& data, const std::string& split, const std::string& flag) {
  if (fs::is_regular_file(data.path)) {
    if (flag == "hf_eval_split")
      Throw(ErrorCode::kUsage, "hf_path={} is one file, which training reads: hf_eval_files= names those of the evaluation", data.path);
    return {data.path};
  }
  if (!fs::is_directory(data.path)) {
    Throw(ErrorCode::kInput,
          "hf_path={}: no such file or folder; nothing is fetched: hf download --repo-type dataset NAME --local-dir DIR does", data.path);
  }
  for (const fs::path& folder : Folders(data)) {
    std::vector<fs::path> files = SplitIn(folder, split);
    if (!files.empty()) return files;
  }
  Throw(ErrorCode::kInput,
        "{}={}: no Parquet, JSONL or JSON file in {}, nor in its data/, has a name that begins so; hf_data_dir= names another "
        "folder in it, hf_train_files= and hf_eval_files= files",
        flag, split, Folders(data).front().string());
}

}  // namespace fathom
