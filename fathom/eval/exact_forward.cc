#include "fathom/eval/exact_forward.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "fathom/base/threads.h"
#include "fathom/checkpoint/check/parameter_values.h"
#include "fathom/kernels/attention/mla_attention_ref.h"
#include "fathom/kernels/attention/rope_ref.h"
#include "fathom/kernels/elementwise/swiglu_ref.h"
#include "fathom/kernels/gemm/gemm_ref.h"
#include "fathom/kernels/indexer/indexer_ref.h"
#include "fathom/kernels/moe/router_ref.h"
#include "fathom/kernels/norm/layer_norm_ref.h"
#include "fathom/kernels/norm/rms_norm_ref.h"
#include "fathom/layers/moe.h"
#include "fathom/layers/rope_table.h"

namespace fathom {
namespace {

constexpr double kInnerEps = 1e-6;  // of the norms inside attention and indexer

// Rows of `width` values: the part [begin, end) of each.
std::vector<double> Columns(const std::vector<double>& x, int64_t width, int64_t begin, int64_t end) {
  std::vector<double> part;
  for (auto row = x.begin(); row != x.end(); row += width) part.insert(part.end(), row + begin, row + end);
  return part;
}

void Add(const std::vector<double>& x, std::vector<double>& y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] += x[i];
}

}  // namespace

double ExactForward::Work(const ModelConfig& c, int64_t tokens) {
  const auto t = static_cast<double>(tokens);
  const auto per_pair = static_cast<double>(c.num_attention_heads * (c.qk_head_dim() + c.v_head_dim) + c.index_n_heads * c.index_head_dim);
  return t * (static_cast<double>(CountParameters(c).active) + t * per_pair * static_cast<double>(c.num_hidden_layers));
}

ExactForward::ExactForward(const Checkpoint& checkpoint, std::span<const int32_t> ids)
    : checkpoint_(checkpoint), config_(checkpoint.config()), router_(RouterShapeOf(config_)), tokens_(std::ssize(ids)) {
  const Values embedding = Read("model.embed_tokens.weight");
  const int64_t width = config_.hidden_size;
  for (const int32_t id : ids) h_.insert(h_.end(), embedding.begin() + id * width, embedding.begin() + (id + 1) * width);
  const double scale = RopeTableScale(config_);
  const std::vector<double> frequencies = RopeFrequencies(config_);
  for (int64_t t = 0; t < tokens_; ++t) {
    for (const double f : frequencies) {
      cos_.push_back(scale * std::cos(static_cast<double>(t) * f));
      sin_.push_back(scale * std::sin(static_cast<double>(t) * f));
    }
  }
}

ExactForward::Values ExactForward::Read(const std::string& name) const {
  const ParameterValues p(checkpoint_.GetWeight(name));
  std::vector<float> values(static_cast<size_t>(p.rows() * p.columns()));
  p.Read(0, p.rows(), 0, p.columns(), values.data());
  return {values.begin(), values.end()};
}

ExactForward::Values ExactForward::Linear(const Values& x, const std::string& name) const {
  const Values w = Read(name);
  const Shape shape = checkpoint_.Find(name)->shape;
  const int64_t n = shape[0], k = shape[1], rows = std::ssize(x) / k;
  Values y(static_cast<size_t>(rows * n));
  ParallelRanges(rows, 1,
                 [&](int64_t begin, int64_t end) { MatMulNTRef(end - begin, n, k, x.data() + begin * k, w.data(), y.data() + begin * n); });
  return y;
}

ExactForward::Values ExactForward::Normed(const Values& x, const std::string& name, double eps) const {
  return RmsNormForwardRef(x, Read(name), eps);
}

ExactForward::Values ExactForward::Mlp(const std::string& prefix, const Values& x) const {
  const Values gate = Linear(x, prefix + "gate_proj.weight"), up = Linear(x, prefix + "up_proj.weight");
  return Linear(SwigluForwardRef(gate, up, Values(x.size() / static_cast<size_t>(config_.hidden_size), 1.0)), prefix + "down_proj.weight");
}

void ExactForward::Rotate(Values& x, int64_t heads, int64_t stride, int64_t offset, bool halves) const {
  const int64_t d = config_.qk_rope_head_dim;
  for (int64_t row = 0; row < tokens_ * heads; ++row) {
    const auto part = x.begin() + row * stride + offset;
    const int64_t angle = row / heads * d / 2;
    const Values cos(cos_.begin() + angle, cos_.begin() + angle + d / 2), sin(sin_.begin() + angle, sin_.begin() + angle + d / 2);
    std::ranges::copy(
        RopeRef(Values(part, part + d), cos, sin, halves ? RopePairs::kHalves : RopePairs::kInterleaved, RopeDirection::kForward), part);
  }
}

std::vector<std::vector<int32_t>> ExactForward::Keys(const std::string& prefix, const Values& x, const Values& q_low) const {
  const Segment all{0, tokens_, 0, tokens_};
  std::vector<std::vector<int32_t>> keys = ref::VisibleKeys({&all, 1}, tokens_);
  if (!config_.has_indexer()) return keys;
  const IndexerShape shape{config_.index_n_heads, config_.index_head_dim};
  ref::IndexerInputs<double> in;
  in.q = Linear(q_low, prefix + "wq_b.weight");
  in.k = LayerNormForwardRef(Linear(x, prefix + "wk.weight"), Read(prefix + "k_norm.weight"), Read(prefix + "k_norm.bias"), kInnerEps);
  in.weights = Linear(x, prefix + "weights_proj.weight");  // a common factor changes no choice
  Rotate(in.q, shape.heads, shape.head_dim, 0, true);
  Rotate(in.k, 1, shape.head_dim, 0, true);
  for (int64_t t = 0; t < tokens_; ++t) {
    std::vector<int32_t>& own = keys[static_cast<size_t>(t)];
    std::vector<double> scores;
    for (const int32_t key : own) scores.push_back(ref::IndexerScore(shape, in, t, key));
    own = ref::BestKeys(scores, own, config_.index_topk);
  }
  return keys;
}

ExactForward::Values ExactForward::Attention(const std::string& prefix, const Values& x) const {
  const ModelConfig& c = config_;
  const MlaShape shape{c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim, static_cast<float>(SoftmaxScale(c))};
  const int64_t rank = c.kv_lora_rank, width = rank + c.qk_rope_head_dim;
  Values q_low;
  ref::MlaInputs<double> in;
  if (c.q_lora_rank > 0) {
    q_low = Normed(Linear(x, prefix + "q_a_proj.weight"), prefix + "q_a_layernorm.weight", kInnerEps);
    in.q = Linear(q_low, prefix + "q_b_proj.weight");
  } else {
    in.q = Linear(x, prefix + "q_proj.weight");
  }
  const Values low = Linear(x, prefix + "kv_a_proj_with_mqa.weight");
  in.kv = Linear(Normed(Columns(low, width, 0, rank), prefix + "kv_a_layernorm.weight", kInnerEps), prefix + "kv_b_proj.weight");
  in.k_rope = Columns(low, width, rank, width);
  Rotate(in.q, shape.heads, c.qk_head_dim(), c.qk_nope_head_dim, false);
  Rotate(in.k_rope, 1, c.qk_rope_head_dim, 0, false);
  return Linear(ref::MlaForward(shape, Keys(prefix + "indexer.", x, q_low), in).o, prefix + "o_proj.weight");
}

ExactForward::Values ExactForward::Experts(const std::string& prefix, const Values& x) const {
  const int64_t width = config_.hidden_size;
  const Values logits = Linear(x, prefix + "gate.weight");
  const std::string bias_name = prefix + "gate.e_score_correction_bias";
  const Values bias = checkpoint_.Has(bias_name) ? Read(bias_name) : Values();
  std::map<int32_t, std::vector<std::pair<int64_t, double>>> rows;  // of each expert: tokens and weights
  for (int64_t t = 0; t < tokens_; ++t) {
    const auto row = logits.begin() + t * router_.experts;
    const Values scores = RouterScoresRef(router_, Values(row, row + router_.experts));
    const std::vector<int32_t> ids = RouterChoiceRef(router_, scores, bias);
    const Values weights = RouterWeightsRef(router_, scores, ids);
    for (size_t k = 0; k < ids.size(); ++k) rows[ids[k]].emplace_back(t, weights[k]);
  }
  Values y = config_.n_shared_experts > 0 ? Mlp(prefix + "shared_experts.", x) : Values(x.size());
  for (const auto& [expert, tokens] : rows) {
    Values inputs;
    for (const auto& [t, weight] : tokens) inputs.insert(inputs.end(), x.begin() + t * width, x.begin() + (t + 1) * width);
    const Values outputs = Mlp(prefix + "experts." + std::to_string(expert) + ".", inputs);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const auto& [t, weight] = tokens[i / static_cast<size_t>(width)];
      y[static_cast<size_t>(t * width) + i % static_cast<size_t>(width)] += weight * outputs[i];
    }
  }
  return y;
}

void ExactForward::Step(int64_t layer) {
  const std::string prefix = LayerPrefix(layer);
  Add(Attention(prefix + "self_attn.", Normed(h_, prefix + "input_layernorm.weight", config_.rms_norm_eps)), h_);
  const Values x = Normed(h_, prefix + "post_attention_layernorm.weight", config_.rms_norm_eps);
  Add(config_.is_moe_layer(layer) ? Experts(prefix + "mlp.", x) : Mlp(prefix + "mlp.", x), h_);
}

}  // namespace fathom
