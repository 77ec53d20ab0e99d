#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "apps/command.h"
#include "fathom/base/file.h"
#include "fathom/base/log.h"
#include "fathom/base/progress.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/checkpoint/hub/validate.h"
#include "fathom/checkpoint/orbax/orbax.h"
#include "fathom/checkpoint/orbax/zarr.h"

namespace fathom {
namespace {

// A tensor, or an array of an Orbax checkpoint.
struct Listed {
  std::string name;
  DType dtype;
  Shape shape;
  std::set<std::string> files;
  int64_t stored = 0;  // bytes on disk

  int64_t NumBytes() const { return shape.NumElements() * DTypeSize(dtype); }
};

struct Inspected {
  std::optional<ModelConfig> config;
  bool is_orbax = false;
  std::vector<Listed> tensors;  // in the order of the model, what it does not know at the end

  std::set<std::string> Files() const {
    std::set<std::string> files;
    for (const Listed& tensor : tensors) files.insert(tensor.files.begin(), tensor.files.end());
    return files;
  }
  int64_t NumBytes() const {
    int64_t sum = 0;
    for (const Listed& tensor : tensors) sum += tensor.NumBytes();
    return sum;
  }
  int64_t StoredBytes() const {
    int64_t sum = 0;
    for (const Listed& tensor : tensors) sum += tensor.stored;
    return sum;
  }
};

std::vector<std::string> ModelOrder(const TensorFolder& folder, const std::optional<ModelConfig>& config) {
  if (!config) return folder.names();
  std::vector<std::string> names;
  std::set<std::string> listed;
  const auto add = [&](const std::string& name) {
    if (folder.Has(name) && listed.insert(name).second) names.push_back(name);
  };
  for (const ParamSpec& tensor : ModelSpec(*config)) {
    add(tensor.name);
    add(tensor.name + std::string(kScaleSuffix));
  }
  for (const std::string& name : folder.names()) add(name);
  return names;
}

// The model that the folder holds. What does not fit is named and does not keep the rest from being listed: check files is the judge.
ModelConfig HeldConfig(const TensorFolder& folder, const std::vector<std::string>& ignore_keys) {
  ModelConfig config = ReadModelConfig(folder.dir(), ignore_keys);
  const std::string left_out = LeaveOutAbsentMtp(folder, config);
  if (!left_out.empty()) spdlog::info("{}", left_out);
  int64_t differences = 0;
  CompareWithConfig(folder, config, {}, [&](const std::string& text) {
    if (++differences == 1) spdlog::warn("{}; fathom check files lists all that does not fit", text);
  });
  return config;
}

Inspected OpenFolder(const std::filesystem::path& dir, const std::vector<std::string>& ignore_keys) {
  const TensorFolder folder = TensorFolder::Open(dir);
  Inspected inspected;
  std::error_code ignored;
  if (std::filesystem::exists(dir / "config.json", ignored)) inspected.config = HeldConfig(folder, ignore_keys);
  for (const std::string& name : ModelOrder(folder, inspected.config)) {
    const TensorEntry& entry = *folder.Find(name);
    inspected.tensors.push_back(
        {name, entry.dtype, entry.shape, {folder.FileOf(name).path().filename().string()}, static_cast<int64_t>(entry.NumBytes())});
  }
  return inspected;
}

// The arrays as they are stored: layers and experts stacked, a training state beside the parameters.
Inspected OpenOrbax(const std::filesystem::path& items, const std::vector<std::string>& ignore_keys) {
  const std::shared_ptr<const KeyStore> store = KeyStore::Open(items);
  const auto no_cache = std::make_shared<ChunkCache>(0, items);  // nothing is decoded
  Inspected inspected;
  inspected.is_orbax = true;
  if (const auto config = FindConfigNear(items)) inspected.config = ReadModelConfig(config->parent_path(), ignore_keys);
  for (const std::string& name : ZarrArrayNames(*store)) {
    const ZarrReader reader(store, name, no_cache);
    Listed array = {name, reader.array().dtype, reader.array().shape, {}, static_cast<int64_t>(reader.StoredBytes())};
    for (const auto& file : reader.Files()) array.files.insert(file.lexically_relative(items).string());
    inspected.tensors.push_back(std::move(array));
  }
  return inspected;
}

Inspected Open(const std::filesystem::path& dir, const std::vector<std::string>& ignore_keys) {
  RefuseRunFolder(dir);
  const auto items = FindOrbaxItems(dir);
  return items ? OpenOrbax(*items, ignore_keys) : OpenFolder(dir, ignore_keys);
}

// "model.layers.3.mlp.experts.17.up_proj.weight" -> "model.layers.*.mlp.experts.*.up_proj.weight"; Orbax's "moe_layers_3" ->
// "moe_layers_*".
std::string Pattern(const std::string& name) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    const size_t layers = name.find("layers_", at), digits = layers < end ? layers + 7 : at;
    const bool number = end > digits && name.find_first_not_of("0123456789", digits) >= end;
    parts.push_back(name.substr(at, (number ? digits : end) - at) + (number ? "*" : ""));
    at = end + 1;
  }
  return fmt::format("{}", fmt::join(parts, "."));
}

struct Row {
  std::string name;
  DType dtype;
  Shape shape;
  int64_t count = 0, bytes = 0;
  std::set<std::string> files;
};

// One row per tensor, or per (pattern, dtype, shape).
std::vector<Row> Rows(const Inspected& in, bool full) {
  std::vector<Row> rows;
  std::map<std::string, size_t> row_of;
  for (const Listed& tensor : in.tensors) {
    const std::string shown = full ? tensor.name : Pattern(tensor.name),
                      key = fmt::format("{} {} {}", shown, DTypeName(tensor.dtype), tensor.shape.ToString());
    const auto [it, added] = row_of.try_emplace(key, rows.size());
    if (added) rows.push_back({shown, tensor.dtype, tensor.shape, 0, 0, {}});
    Row& row = rows[it->second];
    ++row.count;
    row.bytes += tensor.NumBytes();
    row.files.insert(tensor.files.begin(), tensor.files.end());
  }
  return rows;
}

std::map<std::string, int64_t> BytesByDType(const Inspected& in) {
  std::map<std::string, int64_t> bytes;
  for (const Listed& tensor : in.tensors) bytes[std::string(DTypeName(tensor.dtype))] += tensor.NumBytes();
  return bytes;
}

std::string Count(int64_t n) {
  const auto x = static_cast<double>(n);
  if (x >= 1e9) return fmt::format("{:.2f} B", x / 1e9);
  if (x >= 1e6) return fmt::format("{:.2f} M", x / 1e6);
  return std::to_string(n);
}

int64_t MoeLayers(const ModelConfig& c) {
  int64_t layers = 0;
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) layers += c.is_moe_layer(layer) ? 1 : 0;
  return layers;
}

void PrintModel(const ModelConfig& c) {
  const int64_t moe = MoeLayers(c);
  fmt::print("model       {}, {} layers ({} dense, {} MoE), {} MTP\n", c.raw.value("model_type", ""), c.num_hidden_layers,
             c.num_hidden_layers - moe, moe, c.num_nextn_predict_layers);
  fmt::print("widths      hidden {}, ffn {}, vocabulary {}, context {}\n", c.hidden_size, c.intermediate_size, c.vocab_size,
             c.max_position_embeddings);
  fmt::print("attention   {} heads, q_lora_rank {}, kv_lora_rank {}, head {} + {} rope, value {}\n", c.num_attention_heads, c.q_lora_rank,
             c.kv_lora_rank, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim);
  if (c.has_indexer()) fmt::print("indexer     {} heads of {}, top {}\n", c.index_n_heads, c.index_head_dim, c.index_topk);
  if (moe > 0) {
    fmt::print("experts     {} routed, {} chosen, {} shared, width {}, {} of {} groups\n", c.n_routed_experts, c.num_experts_per_tok,
               c.n_shared_experts, c.moe_intermediate_size, c.topk_group, c.n_group);
  }
  const ParameterCounts counts = CountParameters(c);
  fmt::print("parameters  {} total, {} active per token", Count(counts.total), Count(counts.active));
  if (counts.mtp > 0) fmt::print(", MTP {}", Count(counts.mtp));
  fmt::print("\n");
}

void PrintStored(const Inspected& in) {
  std::vector<std::string> parts;
  for (const auto& [dtype, bytes] : BytesByDType(in)) parts.push_back(dtype + " " + FormatBytes(static_cast<double>(bytes)));
  fmt::print("stored      {} in {} {}, {} files: {}", FormatBytes(static_cast<double>(in.NumBytes())), in.tensors.size(),
             in.is_orbax ? "Orbax arrays" : "tensors", in.Files().size(), fmt::join(parts, ", "));
  if (in.is_orbax) fmt::print("; compressed {}", FormatBytes(static_cast<double>(in.StoredBytes())));
  fmt::print("\n\n");
}

void PrintRows(const std::vector<Row>& rows) {
  size_t width = 64;
  for (const Row& row : rows) width = std::max(width, row.name.size());
  fmt::print("{:<{}} {:>7} {:<8} {:<20} {:>10}  {}\n", "tensor", width, "count", "dtype", "shape", "bytes", "file");
  for (const Row& row : rows) {
    const std::string file = row.files.size() == 1 ? *row.files.begin() : fmt::format("{} files", row.files.size());
    fmt::print("{:<{}} {:>7} {:<8} {:<20} {:>10}  {}\n", row.name, width, row.count, DTypeName(row.dtype), row.shape.ToString(),
               FormatBytes(static_cast<double>(row.bytes)), file);
  }
}

Json ToJson(const Inspected& in) {
  Json tensors = Json::array();
  for (const Listed& tensor : in.tensors) {
    const auto dims = tensor.shape.dims();
    tensors.push_back({{"name", tensor.name},
                       {"dtype", DTypeName(tensor.dtype)},
                       {"shape", std::vector<int64_t>(dims.begin(), dims.end())},
                       {"bytes", tensor.NumBytes()}});
    if (in.is_orbax)
      tensors.back().update({{"stored_bytes", tensor.stored}, {"files", tensor.files}});
    else
      tensors.back()["file"] = *tensor.files.begin();
  }
  Json json = {{"bytes", in.NumBytes()}, {"bytes_by_dtype", BytesByDType(in)}, {"tensors", std::move(tensors)}};
  if (in.config) {
    const ParameterCounts counts = CountParameters(*in.config);
    json["config"] = in.config->raw;
    json["parameters"] = {{"total", counts.total}, {"active", counts.active}, {"mtp", counts.mtp}};
  }
  return json;
}

std::filesystem::path InputOf(const RunConfig& config) {
  std::vector<std::string> inputs = config.Strings("input");
  inputs.insert(inputs.end(), config.words().begin(), config.words().end());
  if (inputs.size() != 1) Throw(ErrorCode::kUsage, "inspect needs one folder: fathom inspect DIR");
  return inputs[0];
}

int Run(const RunConfig& config) {
  const Inspected inspected = Open(InputOf(config), config.Strings("ignore_config_keys"));
  const std::string& json = config.String("json");
  if (!json.empty()) WriteOutput(json, JsonText(ToJson(inspected)));
  if (json == "-" || json == "/dev/stdout") return 0;
  if (inspected.config) PrintModel(*inspected.config);
  PrintStored(inspected);
  PrintRows(Rows(inspected, config.Bool("full")));
  return 0;
}

}  // namespace

Command InspectCommand() {
  return {.name = "inspect",
          .summary = "a checkpoint's config, parameter counts, sizes and tensors",
          .flags = {"input", "ignore_config_keys", "full"},
          .run = Run,
          .operands = "DIR"};
}

}  // namespace fathom
