// Muon (Jordan et al., 2024) as optax writes it, for one matrix: momentum, looked ahead, whose singular values are moved towards 1.
#pragma once

#include <cstdint>
#include <optional>

#include "fathom/kernels/elementwise/rounding.h"
#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

struct MuonStep {
  double learning_rate, beta, weight_decay, eps;
  int64_t t;                             // 1 for the first update
  double grad_scale;                     // multiplies g first: clipping
  std::optional<double> consistent_rms;  // see below
  Rounding rounding = {};                // of w and m where they are BF16
};

// The ranks that keep parts of a matrix [N,K].
class MatrixRanks {
 public:
  virtual ~MatrixRanks() = default;
  virtual Shape whole() const = 0;
  // part: this rank's, contiguous, F32; x [N,K] F32 is overwritten with the parts of all. Called by all of them in the same order.
  virtual void Gather(ConstView part, View x, Arena& scratch) const = 0;
  // What this rank keeps of it.
  virtual View OwnPart(View x) const = 0;
};

// w, m, g: [N,K], contiguous; w F32|BF16, m F32|BF16, g F32. bf16_copy, unless empty, gets the new w rounded to BF16.
struct MuonTensors {
  View w, m;
  ConstView g;
  View bf16_copy = {};
  const MatrixRanks* ranks = nullptr;  // unless null, these are this rank's part of the matrix
};

// m = beta m + (1-beta) g,  u = beta m / (1-beta^(t+1)) + (1-beta) g / (1-beta^t),  x = u / (|u| + eps); then five times
// x = 3.4445 x - 4.775 (x x^T) x + 2.0315 (x x^T)^2 x,  and w -= lr (s x + decay w) with s = sqrt(max(1, N/K)), or
// sqrt(max(N, K)) consistent_rms. Updates w and m.
void MuonUpdate(const MuonStep& step, const MuonTensors& tensors, Arena& scratch);

// What that takes of scratch at most. is_part: of a matrix [N,K] that ranks keep parts of.
int64_t MuonScratchBytes(int64_t n, int64_t k, bool is_part = false);

}  // namespace fathom
