#include "fathom/checkpoint/hub/save.h"

#include <algorithm>
#include <array>

#include "fathom/base/error.h"
#include "fathom/checkpoint/safetensors/tensor_folder.h"

namespace fathom {
namespace {

constexpr uintmax_t kMaxCompanion = 64 << 20;  // bytes
constexpr std::array kCompanionSuffixes = {".json", ".jinja", ".txt", ".model", ".py", ".md"};
constexpr std::array kHubNames = {"tokenizer.json",       "tokenizer_config.json",     "special_tokens_map.json",      "added_tokens.json",
                                  "chat_template.jinja",  "chat_template.json",        "generation_config.json",       "README.md",
                                  "modeling_deepseek.py", "configuration_deepseek.py", "tokenization_deepseek_fast.py"};

// At least what the header says about a tensor, beyond its name.
int64_t HeaderBytes(const TensorInfo& tensor) { return static_cast<int64_t>(2 * tensor.name.size()) + 192; }

std::vector<TensorInfo> InfosOf(const std::vector<SavedTensor>& tensors) {
  std::vector<TensorInfo> infos;
  for (const SavedTensor& t : tensors) infos.push_back(t.info);
  return infos;
}

bool IsCompanion(const std::filesystem::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  if (!entry.is_regular_file() || entry.file_size() > kMaxCompanion || name == "config.json" || name.ends_with(".index.json")) return false;
  return name.starts_with("LICENSE") || std::ranges::any_of(kCompanionSuffixes, [&](const char* suffix) { return name.ends_with(suffix); });
}

}  // namespace

std::vector<std::vector<size_t>> PlanShards(const std::vector<TensorInfo>& tensors, int64_t max_shard_size) {
  constexpr int64_t kFileBytes = 128;  // prefix, metadata, padding
  std::vector<std::vector<size_t>> shards(1);
  int64_t bytes = kFileBytes;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t more = tensors[i].NumBytes() + HeaderBytes(tensors[i]);
    if (!shards.back().empty() && bytes + more > max_shard_size) {
      shards.emplace_back();
      bytes = kFileBytes;
    }
    shards.back().push_back(i);
    bytes += more;
  }
  return shards;
}

std::string ShardFileName(size_t i, size_t count) {
  return count == 1 ? kSingleFile : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
}

Json IndexJson(const std::vector<TensorInfo>& tensors, const std::vector<std::vector<size_t>>& shards) {
  int64_t total = 0;
  Json weight_map = Json::object();
  for (size_t s = 0; s < shards.size(); ++s) {
    for (const size_t i : shards[s]) {
      total += tensors[i].NumBytes();
      weight_map[tensors[i].name] = ShardFileName(s, shards.size());
    }
  }
  return {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
}

std::vector<TensorFile> ModelTensorFiles(const std::vector<SavedTensor>& tensors, int64_t max_shard_size) {
  const auto shards = PlanShards(InfosOf(tensors), max_shard_size);
  std::vector<TensorFile> files;
  for (size_t s = 0; s < shards.size(); ++s) {
    files.push_back({ShardFileName(s, shards.size()), {}});
    for (const size_t i : shards[s]) files.back().tensors.push_back(tensors[i]);
  }
  return files;
}

void WriteTensorFiles(const std::filesystem::path& dir, const std::vector<TensorFile>& files, SafetensorsWriter::Share share) {
  for (const TensorFile& file : files) {
    SafetensorsWriter writer(dir / file.name, InfosOf(file.tensors), {{"format", "pt"}}, share);
    for (size_t i = 0; i < file.tensors.size() && share != SafetensorsWriter::Share::kHeader; ++i) {
      const SavedTensor& t = file.tensors[i];
      if (!t.part.empty()) writer.WritePart(i, t.part, t.row, t.column);
    }
    writer.Close();
  }
}

void WriteModelJson(const std::filesystem::path& dir, const Json& config, const std::vector<SavedTensor>& tensors, int64_t max_shard_size) {
  const std::vector<TensorInfo> infos = InfosOf(tensors);
  const auto shards = PlanShards(infos, max_shard_size);
  if (shards.size() > 1) WriteFileAtomically(dir / kIndexFile, IndexJson(infos, shards).dump(2) + "\n");
  WriteFileAtomically(dir / "config.json", config.dump(2) + "\n");
}

void WriteModelFiles(const std::filesystem::path& dir, const Json& config, const std::vector<NamedTensor>& tensors,
                     int64_t max_shard_size) {
  const std::vector<SavedTensor> saved(tensors.begin(), tensors.end());
  WriteTensorFiles(dir, ModelTensorFiles(saved, max_shard_size), SafetensorsWriter::Share::kWhole);
  WriteModelJson(dir, config, saved, max_shard_size);
}

std::vector<std::filesystem::path> CompanionFiles(const std::filesystem::path& dir) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    if (IsCompanion(*it)) files.push_back(it->path());
  }
  if (error) Throw(ErrorCode::kInput, "{}: cannot read this folder: {}", dir.string(), error.message());
  return files;
}

std::vector<std::filesystem::path> HubCompanionFiles(const std::filesystem::path& dir) {
  std::vector<std::filesystem::path> files = CompanionFiles(dir);
  std::erase_if(files, [](const std::filesystem::path& file) {
    const std::string name = file.filename().string();
    return !name.starts_with("LICENSE") && std::ranges::find(kHubNames, name) == kHubNames.end();
  });
  return files;
}

void CopyCompanions(const std::filesystem::path& from, const std::filesystem::path& to) { CopyFiles(CompanionFiles(from), to); }

void CopyFiles(const std::vector<std::filesystem::path>& files, const std::filesystem::path& to) {
  for (const std::filesystem::path& file : files) {
    const auto source = MappedFile::Open(file);
    OutputFile copy(to / file.filename());
    copy.Write(source->bytes());
    copy.Close();
  }
}

}  // namespace fathom
