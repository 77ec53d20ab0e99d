// A model's layers in double, from the kernels' references: for small models, where the rounding of f32 would blur where two of them part.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/kernels/moe/router.h"
#include "fathom/spec/model_spec.h"

namespace fathom {

class ExactForward {
 public:
  // The checkpoint outlives it.
  ExactForward(const Checkpoint& checkpoint, std::span<const int32_t> ids);
  // What the layers of these tokens cost, in multiplications.
  static double Work(const ModelConfig& config, int64_t tokens);

  // The residual stream [T,D], from the embedding on.
  const std::vector<double>& stream() const { return h_; }
  void Step(int64_t layer);

 private:
  using Values = std::vector<double>;

  Values Read(const std::string& name) const;
  // x [M,K] times the transpose of the matrix of this name.
  Values Linear(const Values& x, const std::string& name) const;
  Values Normed(const Values& x, const std::string& name, double eps) const;
  Values Mlp(const std::string& prefix, const Values& x) const;
  // d columns from `offset` on of every head, at the positions of the tokens.
  void Rotate(Values& x, int64_t heads, int64_t stride, int64_t offset, bool halves) const;
  std::vector<std::vector<int32_t>> Keys(const std::string& prefix, const Values& x, const Values& q_low) const;
  Values Attention(const std::string& prefix, const Values& x) const;
  Values Experts(const std::string& prefix, const Values& x) const;

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  RouterShape router_;
  int64_t tokens_;
  Values cos_, sin_;  // [T,d/2]
  Values h_;
};

}  // namespace fathom
