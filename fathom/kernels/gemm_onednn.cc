#include "fathom/kernels/gemm_onednn.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "fathom/base/error.h"

namespace fathom {
namespace {

using Memory = dnnl::memory;

Memory::desc Layout(int64_t rows, int64_t columns, Memory::data_type type, int64_t stride, bool transposed) {
  return Memory::desc({rows, columns}, type, transposed ? Memory::dims{1, stride} : Memory::dims{stride, 1});
}

dnnl::matmul MakeMatMul(const dnnl::engine& engine, const Memory::desc& a, const Memory::desc& b, const Memory::desc& c, bool add) {
  dnnl::primitive_attr attributes;
  if (add) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul(dnnl::matmul::primitive_desc(engine, a, b, c, attributes));
#else
  return dnnl::matmul(dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), attributes, engine));
#endif
}

}  // namespace

OneThread::OneThread() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
OneThread::~OneThread() { omp_set_num_threads(threads_); }

void MultiplyF32(int64_t m, int64_t n, int64_t k, Factor a, Factor b, bool add, float* c, int64_t ldc) {
  const auto status = dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1.0f, static_cast<const float*>(a.data),
                                 a.stride, static_cast<const float*>(b.data), b.stride, add ? 1.0f : 0.0f, c, ldc);
  FATHOM_CHECK(status == dnnl_success, "sgemm {}x{}x{}: status {}", m, n, k, static_cast<int>(status));
}

void MultiplyBF16(int64_t m, int64_t n, int64_t k, Factor a, Factor b, bool add, DType c_dtype, void* c, int64_t ldc) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto bf16 = Memory::data_type::bf16;
  const Memory::desc a_layout = Layout(m, k, bf16, a.stride, a.transposed), b_layout = Layout(k, n, bf16, b.stride, b.transposed);
  const Memory::desc c_layout = Layout(m, n, c_dtype == DType::kBF16 ? bf16 : Memory::data_type::f32, ldc, false);
  const Memory a_memory(a_layout, engine, const_cast<void*>(a.data)), b_memory(b_layout, engine, const_cast<void*>(b.data));
  const Memory c_memory(c_layout, engine, c);
  MakeMatMul(engine, a_layout, b_layout, c_layout, add)
      .execute(stream, {{DNNL_ARG_SRC, a_memory}, {DNNL_ARG_WEIGHTS, b_memory}, {DNNL_ARG_DST, c_memory}});
}

}  // namespace fathom
