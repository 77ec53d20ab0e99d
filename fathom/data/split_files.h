// The files of a data set's split, as `hf download` leaves them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace fathom {

// What hf_path, hf_data_dir and hf_name say.
struct HubData {
  std::string path, data_dir, name;
};

// A file: itself, whatever the split. A folder: the data files (Parquet, JSON lines, JSON, each also .zst) whose name begins with the
// split, sorted, of the first that has some: data_dir in it, or name, or itself, data/ in it; in each also all those of a folder named as
// the split. Of names where a separator follows the split ("train-00000-of-00002.parquet") and others ("train_gen.jsonl") only the first
// kind is taken. flag names the split in errors. Throws Error(kInput): nothing there.
std::vector<std::filesystem::path> FindSplitFiles(const HubData& data, const std::string& split, const std::string& flag);

}  // namespace fathom
