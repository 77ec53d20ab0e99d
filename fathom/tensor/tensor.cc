#include "fathom/tensor/tensor.h"

#include <cstdlib>
#include <cstring>

#include "fathom/base/threads.h"

namespace fathom {
namespace {
constexpr int64_t kZeroGrain = 1 << 16;
}

Tensor::Tensor(DType dtype, Shape shape) {
  const int64_t bytes = shape.NumElements() * DTypeSize(dtype);
  FATHOM_CHECK(bytes >= 0, "shape {}", shape.ToString());
  if (PlanScope::Active()) {
    view_ = ConstView(PlanScope::Address(bytes), dtype, shape);
    return;
  }
  const size_t rounded = (static_cast<size_t>(bytes) + 64) / 64 * 64;
  void* data = std::aligned_alloc(64, rounded);
  if (data == nullptr) Throw(ErrorCode::kResource, "out of memory: {} bytes for a tensor {} {}", bytes, DTypeName(dtype), shape.ToString());
  auto* bytes_of = static_cast<std::byte*>(data);
  ParallelRanges(static_cast<int64_t>(rounded), kZeroGrain, [&](int64_t begin, int64_t end) {  // pages lie on all nodes
    std::memset(bytes_of + begin, 0, static_cast<size_t>(end - begin));
  });
  owner_ = std::shared_ptr<const void>(data, [](const void* p) { std::free(const_cast<void*>(p)); });
  view_ = ConstView(static_cast<const std::byte*>(data), dtype, shape);
}

}  // namespace fathom
