// Matrices that ranks along data hold in copies, of which each updates some rows and has their moments (ZeRO-1): gradients are summed to
// those rows, and the new values travel to the others.
#pragma once

#include <vector>

#include "fathom/parallel/comm.h"
#include "fathom/tensor/tensor.h"
#include "fathom/train/placement.h"

namespace fathom {

// One of them, whole on every rank: contiguous [N,K]. copy: the value in BF16, or empty.
struct SharedMatrix {
  View grad, value, copy;
  std::vector<int64_t> rows;  // rank r updates [rows[r], rows[r + 1])
};

class DataShares {
 public:
  // Of those that placement shares. params, compute, grads: outlive this.
  DataShares(const Placement& placement, DecoderParams& params, DecoderParams& compute, DecoderParams& grads);

  bool empty() const { return list_.empty(); }
  int64_t NumBytes() const { return received_.NumBytes(); }
  // This rank's rows of every gradient become the sum over the ranks, in their order; the other rows stay as they are.
  void SumGradients();
  // Every row of the values, and of their copies, becomes what its rank has made of it.
  void GatherValues() const;

 private:
  View RowsOf(const SharedMatrix& m, const View& whole, int rank) const;
  void SumGroup(size_t begin, size_t end);

  Comm comm_;
  std::vector<SharedMatrix> list_;
  std::vector<size_t> groups_;  // ends of those that travel together
  Tensor received_;
};

}  // namespace fathom
