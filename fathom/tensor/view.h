// Views: a pointer, a dtype, a shape, and the distance between rows. They own nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fathom/base/error.h"
#include "fathom/tensor/dtype.h"
#include "fathom/tensor/shape.h"

namespace fathom {

// Row-major; every dimension but the first is contiguous. `stride` is the distance in elements between neighbours along
// dimension 0 (the product of the other dimensions unless the view is a slice of columns).
template <class Byte>
class BasicView {
 public:
  BasicView() = default;
  BasicView(Byte* data, DType dtype, Shape shape, int64_t stride = -1)
      : data_(data), dtype_(dtype), shape_(shape), stride_(stride >= 0 ? stride : RowElements(shape)) {}
  template <class Other>
  requires(!std::is_same_v<Other, Byte> && std::is_convertible_v<Other*, Byte*>) BasicView(const BasicView<Other>& v)
      : BasicView(v.raw(), v.dtype(), v.shape(), v.stride()) {}  // View -> ConstView

  template <class T>
  using Element = std::conditional_t<std::is_const_v<Byte>, const T, T>;

  Byte* raw() const { return data_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int rank() const { return shape_.rank(); }
  int64_t stride() const { return stride_; }
  int64_t NumElements() const { return shape_.NumElements(); }
  int64_t NumBytes() const { return NumElements() * DTypeSize(dtype_); }
  bool empty() const { return data_ == nullptr || NumElements() == 0; }
  bool contiguous() const { return stride_ == RowElements(shape_) || (rank() > 0 && dim(0) <= 1); }

  // Elements as T; the dtype must be T's.
  template <class T>
  Element<T>* data() const {
    FATHOM_CHECK(dtype_ == DTypeOf<T>::value, "view is {}, asked as {}", DTypeName(dtype_), DTypeName(DTypeOf<T>::value));
    return reinterpret_cast<Element<T>*>(data_);
  }
  // Row i of dimension 0.
  template <class T>
  Element<T>* row(int64_t i) const {
    return data<T>() + i * stride_;
  }
  // Rows [begin, end) of dimension 0.
  BasicView Rows(int64_t begin, int64_t end) const {
    FATHOM_CHECK(0 <= begin && begin <= end && end <= dim(0), "rows {}..{} of {}", begin, end, shape_.ToString());
    Shape s = shape_;
    s[0] = end - begin;
    return BasicView(data_ + begin * stride_ * DTypeSize(dtype_), dtype_, s, stride_);
  }
  // Columns [begin, end) of a matrix.
  BasicView Cols(int64_t begin, int64_t end) const {
    FATHOM_CHECK(rank() == 2 && 0 <= begin && begin <= end && end <= dim(1), "columns {}..{} of {}", begin, end, shape_.ToString());
    return BasicView(data_ + begin * DTypeSize(dtype_), dtype_, Shape{dim(0), end - begin}, stride_);
  }
  // The same elements under another shape; only of a contiguous view.
  BasicView Reshape(Shape shape) const {
    FATHOM_CHECK(contiguous() && shape.NumElements() == NumElements(), "{} as {}", shape_.ToString(), shape.ToString());
    return BasicView(data_, dtype_, shape);
  }

 private:
  static int64_t RowElements(const Shape& s) {
    int64_t n = 1;
    for (int i = 1; i < s.rank(); ++i) n *= s[i];
    return n;
  }
  Byte* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Shape shape_;
  int64_t stride_ = 1;
};

using View = BasicView<std::byte>;
using ConstView = BasicView<const std::byte>;

template <class T>
View ViewOf(T* data, Shape shape, int64_t stride = -1) {
  return View(reinterpret_cast<std::byte*>(data), DTypeOf<T>::value, shape, stride);
}
template <class T>
ConstView ViewOf(const T* data, Shape shape, int64_t stride = -1) {
  return ConstView(reinterpret_cast<const std::byte*>(data), DTypeOf<T>::value, shape, stride);
}

// A weight as stored: F32, BF16, F16, or F8_E4M3 with one scale per 128 x 128 block (F32 or F8_E8M0,
// [ceil(N/128), ceil(K/128)]); value = code * scale, unrounded.
struct WeightView {
  ConstView value;  // [N,K], Hugging Face's [out, in]
  ConstView scale;  // empty unless value is F8_E4M3
};

inline constexpr int64_t kScaleBlock = 128;

}  // namespace fathom
