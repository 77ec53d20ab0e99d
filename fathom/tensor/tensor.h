// Tensors own their elements, or keep alive the file that they are mapped from.
#pragma once

#include <memory>

#include "fathom/tensor/view.h"

namespace fathom {

class Tensor {
 public:
  Tensor() = default;
  // Zeroed memory of its own, aligned to 64 bytes; under a PlanScope an address without memory.
  Tensor(DType dtype, Shape shape);
  // Elements inside something else (a mapped file), which stays alive as long as the tensor. Read-only.
  Tensor(std::shared_ptr<const void> owner, ConstView view) : owner_(std::move(owner)), view_(view), writable_(false) {}
  // Elements inside memory that others write too: tensors that take turns in one place.
  static Tensor Sharing(std::shared_ptr<const void> owner, View view) {
    Tensor tensor(std::move(owner), view);
    tensor.writable_ = true;
    return tensor;
  }
  // What keeps the elements alive.
  const std::shared_ptr<const void>& owner() const { return owner_; }

  bool empty() const { return view_.raw() == nullptr; }
  bool writable() const { return writable_; }
  DType dtype() const { return view_.dtype(); }
  const Shape& shape() const { return view_.shape(); }
  int64_t dim(int i) const { return view_.dim(i); }
  int64_t NumElements() const { return view_.NumElements(); }
  int64_t NumBytes() const { return empty() ? 0 : view_.NumBytes(); }

  ConstView view() const { return view_; }
  operator ConstView() const { return view_; }
  // Only of writable tensors.
  View mutable_view() {
    FATHOM_CHECK(writable_, "tensor {} is read-only", shape().ToString());
    return View(const_cast<std::byte*>(view_.raw()), view_.dtype(), view_.shape());
  }
  template <class T>
  const T* data() const {
    return view_.data<T>();
  }
  template <class T>
  T* mutable_data() {
    return mutable_view().data<T>();
  }

 private:
  std::shared_ptr<const void> owner_;
  ConstView view_;
  bool writable_ = true;
};

// A low-rank adapter beside a matrix [N,K] (LoRA, arXiv 2106.09685): the layer computes with W + factor B A. As a gradient: those of A and
// B.
struct LowRank {
  Tensor a;           // [r,K] F32
  Tensor b;           // [N,r] F32
  double factor = 1;  // alpha / r
};

// A parameter: its value, the scales when that is block FP8, and the adapter if it has one. As a gradient it is empty, whole or in part,
// for what is not trained.
struct Weight {
  Tensor value;
  Tensor scale_inv;
  std::shared_ptr<LowRank> adapter;
  WeightView view() const { return {value.view(), scale_inv.empty() ? ConstView() : scale_inv.view()}; }
  operator WeightView() const { return view(); }
};

}  // namespace fathom
