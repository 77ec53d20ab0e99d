#include "fathom/parallel/local_comm.h"

#include <cstring>

namespace fathom {
namespace {

// Both may be the same memory.
void Copy(ConstView in, View out) {
  FATHOM_CHECK(in.dtype() == out.dtype() && in.shape() == out.shape(), "{} {} into {} {}", DTypeName(in.dtype()), in.shape().ToString(),
               DTypeName(out.dtype()), out.shape().ToString());
  FATHOM_CHECK(in.contiguous() && out.contiguous());
  if (!in.empty() && in.raw() != out.raw()) std::memcpy(out.raw(), in.raw(), static_cast<size_t>(in.NumBytes()));
}

bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF64; }

}  // namespace

void LocalComm::AllReduceSum(View x) {
  FATHOM_CHECK(x.contiguous() && (IsFloat(x.dtype()) || x.dtype() == DType::kI64), "sum over ranks of {}", DTypeName(x.dtype()));
}

void LocalComm::Broadcast(View x, int root) { FATHOM_CHECK(x.contiguous() && root == 0, "rank {} of 1", root); }

void LocalComm::AllGather(ConstView in, View out) { Copy(in, out); }

void LocalComm::ReduceScatterSum(ConstView in, View out) {
  FATHOM_CHECK(IsFloat(in.dtype()), "sum over ranks of {}", DTypeName(in.dtype()));
  Copy(in, out);
}

}  // namespace fathom
