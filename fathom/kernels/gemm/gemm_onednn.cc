#include "fathom/kernels/gemm/gemm_onednn.h"

#include <omp.h>

#include <map>
#include <new>
#include <oneapi/dnnl/dnnl.hpp>

#include "fathom/base/error.h"

namespace fathom {
namespace {

using Memory = dnnl::memory;

void CheckStatus(dnnl_status_t status, const char* what) {
  if (status == dnnl_out_of_memory) throw std::bad_alloc();
  FATHOM_CHECK(status == dnnl_success, "{}: oneDNN's status {}", what, static_cast<int>(status));
}

// oneDNN throws errors of its own; what they mean is that there is no memory.
template <class F>
auto Guarded(const F& f) {
  try {
    return f();
  } catch (const dnnl::error& e) {
    if (e.status == dnnl_unimplemented || e.status == dnnl_invalid_arguments) throw;
    throw std::bad_alloc();
  }
}

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

// What a compiled product depends on.
struct ProductKind {
  int64_t m, n, k, a_stride, b_stride, c_stride;
  bool a_transposed, b_transposed, add;
  DType c_dtype;
  auto operator<=>(const ProductKind&) const = default;
};

// A compiled product and the handles that running it takes.
class ProductBF16 {
 public:
  ProductBF16(const dnnl::engine& engine, const ProductKind& p)
      : a_(Layout(p.m, p.k, Memory::data_type::bf16, p.a_stride, p.a_transposed), engine, nullptr),
        b_(Layout(p.k, p.n, Memory::data_type::bf16, p.b_stride, p.b_transposed), engine, nullptr),
        c_(Layout(p.m, p.n, p.c_dtype == DType::kBF16 ? Memory::data_type::bf16 : Memory::data_type::f32, p.c_stride, false), engine,
           nullptr),
        product_(MakeMatMul(engine, a_.get_desc(), b_.get_desc(), c_.get_desc(), p.add)) {}

  // The C call: the C++ one makes a table of its arguments each time.
  void Run(const dnnl::stream& stream, const void* a, const void* b, void* c) {
    a_.set_data_handle(const_cast<void*>(a));
    b_.set_data_handle(const_cast<void*>(b));
    c_.set_data_handle(c);
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, a_.get()}, {DNNL_ARG_WEIGHTS, b_.get()}, {DNNL_ARG_DST, c_.get()}};
    const auto status = dnnl_primitive_execute(product_.get(), stream.get(), 3, arguments);
    CheckStatus(status, "bf16 product");
  }

 private:
  Memory a_, b_, c_;
  dnnl::matmul product_;
};

// The products that one thread has run, so that running one again asks for no memory.
class ProductsBF16 {
 public:
  void Run(const ProductKind& kind, const void* a, const void* b, void* c) {
    auto found = products_.find(kind);
    if (found == products_.end()) {
      if (products_.size() >= kMost) products_.clear();
      found = Guarded([&] { return products_.try_emplace(kind, engine_, kind).first; });
    }
    found->second.Run(stream_, a, b, c);
  }

 private:
  static constexpr size_t kMost = 2048;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::map<ProductKind, ProductBF16> products_;
};

}  // namespace

// AVX2's kernel sums a last 8 columns in another order than 8 among others.
int64_t ColumnUnit() {
  const auto isa = dnnl_get_effective_cpu_isa();
  return (isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core ? 4 : 16;
}

OneThread::OneThread() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
OneThread::~OneThread() { omp_set_num_threads(threads_); }

void MultiplyF32(const BlockMultiply& p) {
  const auto& [m, n, k, a, b, add, c_dtype, c, c_stride] = p;
  FATHOM_CHECK(c_dtype == DType::kF32, "a product of F32 into {}", DTypeName(c_dtype));
  const auto status =
      dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1.0f, static_cast<const float*>(a.data), a.stride,
                 static_cast<const float*>(b.data), b.stride, add ? 1.0f : 0.0f, static_cast<float*>(c), c_stride);
  CheckStatus(status, "sgemm");
}

void MultiplyBF16(const BlockMultiply& p) {
  thread_local ProductsBF16 products;
  const ProductKind kind{p.m, p.n, p.k, p.a.stride, p.b.stride, p.c_stride, p.a.transposed, p.b.transposed, p.add, p.c_dtype};
  products.Run(kind, p.a.data, p.b.data, p.c);
}

}  // namespace fathom
