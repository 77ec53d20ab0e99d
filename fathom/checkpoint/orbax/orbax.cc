#include "fathom/checkpoint/orbax/orbax.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "fathom/base/error.h"
#include "fathom/checkpoint/orbax/ocdbt.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char* kMetadata = "_METADATA";
constexpr const char* kCheckpointMetadata = "_CHECKPOINT_METADATA";
constexpr std::string_view kAux = "nnx_aux.model.";

bool IsItems(const fs::path& path) { return fs::exists(path / kOcdbtManifest) || fs::exists(path / kMetadata); }

// nullopt unless text is a number as a whole.
std::optional<int64_t> ParseStep(const std::string& text) {
  int64_t step = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), step);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return step;
}

std::optional<fs::path> LatestStepWithItems(const fs::path& path) {
  std::optional<int64_t> best;
  std::error_code failed;
  for (fs::directory_iterator it(path, failed), end; !failed && it != end; it.increment(failed)) {
    const auto step = ParseStep(it->path().filename().string());
    if (step && *step >= 0 && (!best || *step > *best) && IsItems(it->path() / "items")) best = step;
  }
  if (!best) return std::nullopt;
  return path / std::to_string(*best) / "items";
}

// The prefix of the parameters: the one array of that name that is no optimizer's.
std::string FindPrefix(const std::vector<std::string>& names, const fs::path& items) {
  const std::string_view embedding = FactsOf(ParamRole::kEmbedding).maxtext;
  for (const std::string& name : names) {
    if (name.ends_with(embedding) && !name.starts_with("opt_state")) return name.substr(0, name.size() - embedding.size());
  }
  Throw(ErrorCode::kInput, "{}: no array {}: not a checkpoint of MaxText, or an incomplete one", items.string(), embedding);
}

std::string FindOptimizer(const std::vector<std::string>& names) {
  const std::string ending = "mu.params." + std::string(FactsOf(ParamRole::kEmbedding).maxtext);
  for (const std::string& name : names) {
    if (name.starts_with("opt_state.") && name.ends_with("." + ending)) return name.substr(0, name.size() - ending.size());
  }
  return "";
}

int64_t CountMtpModules(const std::vector<std::string>& names, const std::string& prefix) {
  std::set<std::string> modules;
  const std::string start = prefix + "mtp_block.mtp_layer_";
  for (const std::string& name : names) {
    if (name.starts_with(start)) modules.insert(name.substr(0, name.find('.', start.size())));
  }
  return std::ssize(modules);
}

Json ReadCustomMetadata(const fs::path& path) {
  if (!fs::exists(path)) return Json::object();
  const Json json = ReadJsonFile(path);
  const bool found = json.is_object() && json.contains("custom_metadata") && json["custom_metadata"].is_object();
  return found ? json["custom_metadata"] : Json::object();
}

// Python's repr of a tuple of strings.
std::string TupleText(const std::vector<std::string>& keys) {
  std::string text = "(";
  for (size_t i = 0; i < keys.size(); ++i) text += (i ? ", '" : "'") + keys[i] + "'";
  return text + (keys.size() == 1 ? ",)" : ")");
}

std::vector<std::string> Split(const std::string& name) {
  std::vector<std::string> keys;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    keys.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return keys;
}

}  // namespace

std::optional<fs::path> FindOrbaxItems(const fs::path& path) {
  if (IsItems(path)) return path;
  if (IsItems(path / "items")) return path / "items";
  return LatestStepWithItems(path);
}

std::optional<fs::path> FindConfigNear(const fs::path& items) {
  fs::path folder = fs::absolute(items).lexically_normal();
  for (int up = 0; up < 3 && !folder.empty(); ++up, folder = folder.parent_path()) {
    if (fs::exists(folder / "config.json")) return folder / "config.json";
  }
  return std::nullopt;
}

OrbaxCheckpoint::OrbaxCheckpoint(const fs::path& items, std::shared_ptr<ChunkCache> cache)
    : items_(items), store_(KeyStore::Open(items)), cache_(std::move(cache)), names_(ZarrArrayNames(*store_)) {
  prefix_ = FindPrefix(names_, items);
  scanned_ = std::ranges::any_of(names_, [&](const std::string& name) { return name.starts_with(prefix_) && IsScannedName(name); });
  num_mtp_modules_ = CountMtpModules(names_, prefix_);
  optimizer_ = FindOptimizer(names_);
  custom_ = ReadCustomMetadata(items.parent_path() / kCheckpointMetadata);
}

bool OrbaxCheckpoint::Has(const std::string& name) const { return std::ranges::binary_search(names_, name); }

std::optional<std::string> OrbaxCheckpoint::FindParameter(ParamRole role, const std::string& below) const {
  if (Has(prefix_ + below)) return prefix_ + below;
  const std::string aux = std::string(kAux) + below;
  if (LearnsByCounting(role) && Has(aux)) return aux;
  return std::nullopt;
}

int64_t OrbaxCheckpoint::ReadNumber(const std::string& name) const {
  const ZarrReader reader = Open(name);
  const DType dtype = reader.array().dtype;
  if (reader.array().shape.rank() != 0 || (dtype != DType::kI32 && dtype != DType::kI64)) {
    Throw(ErrorCode::kInput, "{}: array {} is {} {}; expected is one int32 or int64", items_.string(), name, DTypeName(dtype),
          reader.array().shape.ToString());
  }
  int32_t narrow = 0;
  int64_t wide = 0;
  reader.Read({}, {}, dtype == DType::kI64 ? std::as_writable_bytes(std::span(&wide, 1)) : std::as_writable_bytes(std::span(&narrow, 1)));
  return dtype == DType::kI64 ? wide : narrow;
}

std::string FormatOrbaxMetadata(const std::vector<OrbaxLeaf>& leaves, bool ocdbt, bool zarr3) {
  Json tree = Json::object();
  for (const OrbaxLeaf& leaf : leaves) {
    const auto keys = Split(leaf.name);
    Json key_metadata = Json::array();
    for (size_t i = 0; i < keys.size(); ++i) {
      const bool list_index = i > 0 && keys[i - 1] == "opt_state" && ParseStep(keys[i]).has_value();
      key_metadata.push_back({{"key", keys[i]}, {"key_type", list_index ? 1 : 2}});
    }
    tree[TupleText(keys)] = {
        {"key_metadata", key_metadata},
        {"value_metadata",
         {{"value_type", leaf.value_type}, {"skip_deserialize", leaf.value_type == "None" || leaf.value_type == "Dict"}}}};
  }
  const Json json = {{"tree_metadata", tree},
                     {"use_ocdbt", ocdbt},
                     {"use_zarr3", zarr3},
                     {"store_array_data_equal_to_fill_value", true},
                     {"custom_metadata", nullptr}};
  return json.dump();
}

std::string FormatCheckpointMetadata(uint64_t time, const Json& custom) {
  const Json json = {{"item_handlers", {{"items", "orbax.checkpoint.experimental.v1._src.handlers.pytree_handler.PyTreeHandler"}}},
                     {"metrics", Json::object()},
                     {"performance_metrics", Json::object()},
                     {"init_timestamp_nsecs", time},
                     {"commit_timestamp_nsecs", time},
                     {"custom_metadata", custom}};
  return json.dump();
}

}  // namespace fathom
