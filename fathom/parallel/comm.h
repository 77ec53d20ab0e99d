// What ranks say to each other. One rank alone uses LocalComm; the code above is the same for any number.
#pragma once

#include "fathom/tensor/view.h"

namespace fathom {

// Collective: every rank of the group calls the same members in the same order with the same shapes and dtypes. Sums run in the
// order of the ranks, so the bits depend on the number of ranks alone. Views are contiguous. A rank that throws elsewhere must
// reach AllOk first, or the others wait.
class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // x [any] F32|F64|I64, in place: x = sum over ranks.
  virtual void AllReduceSum(View x) = 0;
  // x [any], any dtype: overwritten by root's x on every other rank.
  virtual void Broadcast(View x, int root) = 0;
  // in [n,...] of each rank, out [size*n,...], any dtype: out = rank 0's rows, then rank 1's ...
  virtual void AllGather(ConstView in, View out) = 0;
  // in [size*n,...] F32|F64, out [n,...]: out = this rank's rows of the sum over ranks.
  virtual void ReduceScatterSum(ConstView in, View out) = 0;
  // Returns once every rank has called it.
  virtual void Barrier() = 0;
  // Whether ok is true on every rank: how all of them learn that one has failed.
  virtual bool AllOk(bool ok) = 0;
};

}  // namespace fathom
