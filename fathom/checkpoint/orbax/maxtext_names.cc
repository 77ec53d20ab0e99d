#include "fathom/checkpoint/orbax/maxtext_names.h"

#include <algorithm>
#include <map>

#include "fathom/base/error.h"

namespace fathom {
namespace {

int64_t Product(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (const int64_t d : dims) n *= d;
  return n;
}

// Where one hub tensor goes.
struct Target {
  std::string array;
  int64_t layer = 0, layers = 0;  // layers > 0: stacked
};

class Builder {
 public:
  Builder(const ModelConfig& config, bool scanned) : c_(config), scanned_(scanned) {
    if (c_.n_routed_experts > 0 && c_.moe_layer_freq != 1)
      Throw(ErrorCode::kInput, "moe_layer_freq is {}: MaxText has no such layout, only 1", c_.moe_layer_freq);
  }

  std::vector<MaxTextArray> Build() {
    for (const ParamSpec& param : ModelSpec(c_)) {
      if (param.facts().form != MaxTextForm::kNone) Add(param);
    }
    return std::move(arrays_);
  }

 private:
  Target InGroup(const ParamSpec& param) const {
    const int64_t dense = c_.n_routed_experts > 0 ? std::min(c_.first_k_dense_replace, c_.num_hidden_layers) : c_.num_hidden_layers;
    const bool moe = param.layer >= dense;
    const std::string group = moe ? "moe_layers" : "dense_layers";
    Target target{.layer = moe ? param.layer - dense : param.layer};
    if (scanned_) target.layers = moe ? c_.num_hidden_layers - dense : dense;
    target.array = scanned_ ? fmt::format("decoder.{}.{}", group, param.facts().maxtext)
                            : fmt::format("decoder.{}_{}.{}", group, target.layer, param.facts().maxtext);
    return target;
  }

  static Target InMtp(const ParamSpec& param) {
    const int64_t k = param.mtp + 1;
    const char* layer = param.facts().place == ParamPlace::kMtp ? "" : "transformer_layer.";
    return {fmt::format("mtp_block.mtp_layer_{}.mtp_{}_{}{}", k, k, layer, param.facts().maxtext)};
  }

  Target TargetOf(const ParamSpec& param) const {
    if (param.layer < 0) return {std::string(param.facts().maxtext)};
    return param.is_mtp() ? InMtp(param) : InGroup(param);
  }

  void Add(const ParamSpec& param) {
    const Target target = TargetOf(param);
    const auto [found, fresh] = index_.try_emplace(target.array, arrays_.size());
    if (fresh) arrays_.push_back(Make(param, target));
    MaxTextArray& array = arrays_[found->second];
    array.tensors[static_cast<size_t>(std::max<int64_t>(param.expert, 0) * array.layers + (target.layers > 0 ? target.layer : 0))] =
        param.name;
  }

  MaxTextArray Make(const ParamSpec& param, const Target& target) const {
    MaxTextArray array;
    array.name = target.array;
    array.experts = param.is_expert() ? c_.n_routed_experts : 1;
    array.layers = std::max<int64_t>(1, target.layers);
    array.tensors.resize(static_cast<size_t>(array.experts * array.layers));
    array.transposed = param.facts().form != MaxTextForm::kEmbedding;
    array.role = param.role;
    SetAxes(param.shape, param.facts().form, array);
    if (param.is_expert()) array.expert_axis = 0;
    if (target.layers > 0) array.layer_axis = param.facts().form == MaxTextForm::kRouterBias ? 0 : 1;
    return array;
  }

  void SetAxes(const Shape& shape, MaxTextForm form, MaxTextArray& array) const {
    const int64_t heads = form == MaxTextForm::kIndexerHeadsOut ? c_.index_n_heads : c_.num_attention_heads;
    const bool matrix = shape.rank() == 2;
    array.columns = {matrix ? shape[1] : shape[0]};
    if (matrix) array.rows = {shape[0]};
    if (form == MaxTextForm::kHeadsOut || form == MaxTextForm::kIndexerHeadsOut) array.rows = {heads, shape[0] / heads};
    if (form == MaxTextForm::kHeadsIn) array.columns = {heads, shape[1] / heads};
  }

  const ModelConfig& c_;
  bool scanned_;
  std::vector<MaxTextArray> arrays_;
  std::map<std::string, size_t> index_;
};

}  // namespace

Shape MaxTextArray::shape() const {
  std::vector<int64_t> dims = transposed ? columns : rows;
  const auto& behind = transposed ? rows : columns;
  dims.insert(dims.end(), behind.begin(), behind.end());
  if (expert_axis >= 0) dims.insert(dims.begin() + expert_axis, experts);
  if (layer_axis >= 0) dims.insert(dims.begin() + layer_axis, layers);
  return Shape(dims);
}

int64_t MaxTextArray::Columns() const { return Product(columns); }
int64_t MaxTextArray::Rows() const { return Product(rows); }
int64_t MaxTextArray::RowUnit() const { return rows.empty() ? 1 : Product(rows) / rows[0]; }
int MaxTextArray::RowAxis() const {
  if (rows.empty()) return -1;
  return transposed ? shape().rank() - static_cast<int>(rows.size()) : 0;
}
int MaxTextArray::ColumnAxis() const {
  if (!transposed) return static_cast<int>(rows.size());
  const int before = expert_axis >= 0 ? 1 : 0;
  return before + (layer_axis >= 0 && layer_axis <= before ? 1 : 0);
}

std::vector<MaxTextArray> MaxTextArrays(const ModelConfig& config, bool scanned) { return Builder(config, scanned).Build(); }

bool IsScannedName(const std::string& name) {
  return name.find("decoder.moe_layers.") != name.npos || name.find("decoder.dense_layers.") != name.npos;
}

}  // namespace fathom
