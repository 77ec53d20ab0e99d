#include "fathom/tensor/tensor.h"

#include <cstdlib>
#include <cstring>

namespace fathom {

Tensor::Tensor(DType dtype, Shape shape) {
  const int64_t bytes = shape.NumElements() * DTypeSize(dtype);
  FATHOM_CHECK(bytes >= 0, "shape {}", shape.ToString());
  const size_t rounded = (static_cast<size_t>(bytes) + 64) / 64 * 64;
  void* data = std::aligned_alloc(64, rounded);
  if (data == nullptr) Throw(ErrorCode::kResource, "out of memory: {} bytes for a tensor {} {}", bytes, DTypeName(dtype), shape.ToString());
  std::memset(data, 0, rounded);
  owner_ = std::shared_ptr<const void>(data, [](const void* p) { std::free(const_cast<void*>(p)); });
  view_ = ConstView(static_cast<const std::byte*>(data), dtype, shape);
}

}  // namespace fathom
