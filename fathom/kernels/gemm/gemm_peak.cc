#include "fathom/kernels/gemm/gemm_peak.h"

#include <oneapi/dnnl/dnnl.hpp>

#include "fathom/kernels/elementwise/random_fill.h"

namespace fathom {
namespace {

using dnnl::memory;

dnnl::matmul::primitive_desc MakePlan(const dnnl::engine& engine, const memory::desc& a, const memory::desc& b, const memory::desc& c) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, a, b, c};
#else
  return {dnnl::matmul::desc(a, b, c), engine};
#endif
}

}  // namespace

bool HasOneDnnProduct(DType dtype) { return dtype == DType::kF32 || dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core; }

struct OneDnnProduct::Impl {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  memory a, b, c;
  dnnl::matmul product;
};

OneDnnProduct::OneDnnProduct(DType dtype, int64_t m, int64_t n, int64_t k, bool packed) : impl_(std::make_unique<Impl>()) {
  const auto type = dtype == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc a({m, k}, type, memory::format_tag::ab), stored({k, n}, type, memory::format_tag::ba);
  const memory::desc b({k, n}, type, packed ? memory::format_tag::any : memory::format_tag::ba);
  const memory::desc c({m, n}, memory::data_type::f32, memory::format_tag::ab);
  const auto plan = MakePlan(impl_->engine, a, b, c);
  impl_->a = memory(a, impl_->engine);
  impl_->b = memory(plan.weights_desc(), impl_->engine);
  impl_->c = memory(c, impl_->engine);
  memory weights(stored, impl_->engine);
  FillNormal(0, 0, 1, View(static_cast<std::byte*>(impl_->a.get_data_handle()), dtype, {m, k}));
  FillNormal(0, 1, 1, View(static_cast<std::byte*>(weights.get_data_handle()), dtype, {n, k}));
  dnnl::reorder(weights, impl_->b).execute(impl_->stream, weights, impl_->b);
  impl_->product = dnnl::matmul(plan);
}

OneDnnProduct::~OneDnnProduct() = default;
OneDnnProduct::OneDnnProduct(OneDnnProduct&&) noexcept = default;

void OneDnnProduct::Run() {
  impl_->product.execute(impl_->stream, {{DNNL_ARG_SRC, impl_->a}, {DNNL_ARG_WEIGHTS, impl_->b}, {DNNL_ARG_DST, impl_->c}});
  impl_->stream.wait();
}

}  // namespace fathom
