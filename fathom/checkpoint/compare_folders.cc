#include "fathom/checkpoint/compare_folders.h"

#include <algorithm>
#include <cstring>

#include "fathom/base/threads.h"
#include "fathom/kernels/gemm_panel.h"

namespace fathom {
namespace {

bool IsWeightDType(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF8E4M3; }

// The scales of an FP8 weight that is there.
bool IsScaleOfWeight(const TensorFolder& folder, std::string_view name) {
  if (!name.ends_with(kScaleSuffix)) return false;
  const TensorEntry* weight = folder.Find(name.substr(0, name.size() - kScaleSuffix.size()));
  return weight != nullptr && weight->dtype == DType::kF8E4M3;
}

std::string Describe(const TensorEntry* entry) { return entry == nullptr ? "" : fmt::format("{} {}", DTypeName(entry->dtype), entry->shape.ToString()); }

bool SameBytes(const Tensor& a, const Tensor& b) {
  if (a.empty() || b.empty()) return a.empty() == b.empty();
  return a.dtype() == b.dtype() && std::memcmp(a.view().raw(), b.view().raw(), static_cast<size_t>(a.NumBytes())) == 0;
}

// Any shape as rows of the last dimensions.
ConstView AsMatrix(const Tensor& tensor) {
  const Shape& shape = tensor.shape();
  if (shape.rank() == 2) return tensor.view();
  const int64_t rows = shape.rank() == 0 ? 1 : shape.rank() == 1 ? 1 : shape[0];
  return tensor.view().Reshape({rows, rows == 0 ? 0 : tensor.NumElements() / rows});
}

WeightView MatrixOf(const Weight& weight) { return {AsMatrix(weight.value), weight.scale_inv.empty() ? ConstView() : weight.scale_inv.view()}; }

// Rows of blocks of 128, as many as piece_bytes of f32 hold; columns likewise, for rows that are longer than that.
Difference CompareWeights(const WeightView& a, const WeightView& b, int64_t piece_bytes) {
  const int64_t rows = a.value.dim(0), columns = a.value.dim(1), floats = std::max<int64_t>(piece_bytes / 4, kScaleBlock * kScaleBlock);
  const int64_t width = std::min(columns, floats / kScaleBlock / kScaleBlock * kScaleBlock);
  const int64_t height = std::max<int64_t>(1, floats / std::max<int64_t>(width, 1) / kScaleBlock * kScaleBlock);
  std::vector<float> x(static_cast<size_t>(std::min(height, rows) * width)), y(x.size());
  Difference sum;
  for (int64_t row = 0; row < rows; row += height) {
    for (int64_t column = 0; column < columns; column += width) {
      const PanelRange part{row, std::min(height, rows - row), column, std::min(width, columns - column)};
      WidenPanel(a, part, false, x.data());
      WidenPanel(b, part, false, y.data());
      sum += CompareValues(x.data(), y.data(), part.rows * part.columns);
    }
  }
  return sum;
}

class Comparer {
 public:
  Comparer(const TensorFolder& first, const TensorFolder& second, int64_t piece_bytes) : first_(first), second_(second), piece_bytes_(piece_bytes) {}

  void Compare(TensorComparison& c) const {
    const TensorEntry *a = first_.Find(c.name), *b = second_.Find(c.name);
    c.first = Describe(a);
    c.second = Describe(b);
    if (a == nullptr || b == nullptr) {
      c.verdict = b == nullptr ? Verdict::kOnlyInFirst : Verdict::kOnlyInSecond;
    } else if (a->shape != b->shape) {
      c.verdict = Verdict::kDifferent;
    } else if (!IsWeightDType(a->dtype) || !IsWeightDType(b->dtype)) {
      c.verdict = SameBytes(first_.Get(c.name), second_.Get(c.name)) ? Verdict::kSameBits : Verdict::kDifferent;
    } else {
      CompareValuesOf(c);
    }
    for (const TensorFolder* folder : {&first_, &second_}) {
      if (folder->Has(c.name)) folder->DropPages(c.name);
    }
  }

 private:
  void CompareValuesOf(TensorComparison& c) const {
    const Weight a = first_.GetWeight(c.name), b = second_.GetWeight(c.name);
    if (SameBytes(a.value, b.value) && SameBytes(a.scale_inv, b.scale_inv)) return;
    c.difference = CompareWeights(MatrixOf(a), MatrixOf(b), piece_bytes_);
    const bool same_format = a.value.dtype() == b.value.dtype() && (a.scale_inv.empty() || a.scale_inv.dtype() == b.scale_inv.dtype());
    const bool near = c.difference.Cosine() >= kSameTensorCosine && c.difference.non_finite == 0;
    c.verdict = !same_format && near ? Verdict::kRounded : Verdict::kDifferent;
  }

  const TensorFolder &first_, &second_;
  int64_t piece_bytes_;
};

}  // namespace

std::vector<TensorComparison> CompareFolders(const TensorFolder& first, const TensorFolder& second, int64_t piece_bytes) {
  std::vector<TensorComparison> comparisons;
  for (const std::string& name : first.names()) {
    if (!IsScaleOfWeight(first, name)) comparisons.push_back({.name = name});
  }
  for (const std::string& name : second.names()) {
    if (!first.Has(name) && !IsScaleOfWeight(second, name)) comparisons.push_back({.name = name});
  }
  const Comparer comparer(first, second, piece_bytes);
  std::vector<std::string> errors(comparisons.size());  // an exception must not leave a parallel region
  ParallelJobs(std::ssize(comparisons), [&](int64_t i) {
    try {
      comparer.Compare(comparisons[static_cast<size_t>(i)]);
    } catch (const Error& e) {
      errors[static_cast<size_t>(i)] = e.what();
    }
  });
  for (const std::string& error : errors) {
    if (!error.empty()) throw Error(ErrorCode::kInput, error);
  }
  return comparisons;
}

}  // namespace fathom
