// oneDNN's own speed, as a yardstick for ours. For measurements only; no layer calls it.
#pragma once

#include <cstdint>
#include <memory>

#include "fathom/tensor/dtype.h"

namespace fathom {

// oneDNN multiplies F32 on any CPU, BF16 from AVX-512 on.
bool HasOneDnnProduct(DType dtype);

// The product of random [m,k] and [n,k]^T into [m,n] F32, both factors F32 or BF16, on all threads.
class OneDnnProduct {
 public:
  // Throws dnnl::error unless HasOneDnnProduct(dtype). packed: the second factor lies in the layout that oneDNN likes best; otherwise
  // row-major, as a checkpoint's weights do.
  OneDnnProduct(DType dtype, int64_t m, int64_t n, int64_t k, bool packed);
  ~OneDnnProduct();
  OneDnnProduct(OneDnnProduct&&) noexcept;
  OneDnnProduct& operator=(OneDnnProduct&&) = delete;
  void Run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
