#include "fathom/checkpoint/check/compare_checkpoints.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "fathom/checkpoint/convert/convert_tensors.h"

namespace fathom {
namespace {

bool IsWeightDType(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF8E4M3; }

}  // namespace

// The weights of a checkpoint, each with the way to read it as F32.
class CheckpointComparison::Side {
 public:
  explicit Side(const ConvertSource& source) : source_(source), tasks_(PlanTensors(source, {TargetDType::kF32})) {
    for (const TensorTask& task : tasks_) by_name_[task.info.name] = &task;
  }
  const ConvertSource& source() const { return source_; }
  const std::vector<TensorTask>& tasks() const { return tasks_; }
  const TensorTask* Find(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
  }
  static std::string Describe(const TensorTask* task) {
    return task == nullptr ? "" : fmt::format("{} {}", DTypeName(task->Stored().dtype), task->info.shape.ToString());
  }

 private:
  const ConvertSource& source_;
  std::vector<TensorTask> tasks_;
  std::unordered_map<std::string, const TensorTask*> by_name_;
};

class CheckpointComparison::Comparer {
 public:
  Comparer(const Side& first, const Side& second, int64_t piece_bytes) : first_(first), second_(second), piece_bytes_(piece_bytes) {}

  void Compare(TensorComparison& c) {
    const TensorTask *a = first_.Find(c.name), *b = second_.Find(c.name);
    c.first = Side::Describe(a);
    c.second = Side::Describe(b);
    if (a == nullptr || b == nullptr) {
      c.verdict = b == nullptr ? Verdict::kOnlyInFirst : Verdict::kOnlyInSecond;
    } else if (a->info.shape != b->info.shape) {
      c.verdict = Verdict::kDifferent;
    } else if (!SameFormat(*a, *b) || !SameBytes(*a, *b)) {
      CompareValuesOf(*a, *b, c);
    }
  }

 private:
  bool SameFormat(const TensorTask& a, const TensorTask& b) const {
    if (a.Stored().dtype != b.Stored().dtype || a.scale.has_value() != b.scale.has_value()) return false;
    return !a.scale || first_.source().tensor(*a.scale).dtype == second_.source().tensor(*b.scale).dtype;
  }
  bool SameBytes(const TensorTask& a, const TensorTask& b) {
    return SameBytes(a.source, b.source) && (!a.scale || SameBytes(*a.scale, *b.scale));
  }

  bool SameBytes(size_t i, size_t j) {
    const SourceTensor &a = first_.source().tensor(i), &b = second_.source().tensor(j);
    const int64_t width = DTypeSize(a.dtype);
    return ForPieces(a.shape.NumElements(), width, std::lcm(a.unit, b.unit), piece_bytes_, [&](int64_t begin, int64_t count) {
      a_.resize(static_cast<size_t>(count * width));
      b_.resize(a_.size());
      first_.source().Read(i, begin, count, a_);
      second_.source().Read(j, begin, count, b_);
      return a_ == b_;
    });
  }

  void CompareValuesOf(const TensorTask& a, const TensorTask& b, TensorComparison& c) {
    const SourceTensor &x = a.Stored(), &y = b.Stored();
    c.verdict = Verdict::kDifferent;
    if (!IsWeightDType(x.dtype) || !IsWeightDType(y.dtype)) return;
    ForPieces(x.shape.NumElements(), sizeof(float), std::lcm(a.unit, b.unit), piece_bytes_, [&](int64_t begin, int64_t count) {
      a_.resize(static_cast<size_t>(count) * sizeof(float));
      b_.resize(a_.size());
      converter_.Read(a, begin, count, a_);
      converter_.Read(b, begin, count, b_);
      c.difference += CompareValues(reinterpret_cast<const float*>(a_.data()), reinterpret_cast<const float*>(b_.data()), count);
      return true;
    });
    const bool near = c.difference.Cosine() >= kSameTensorCosine && c.difference.non_finite == 0;
    if (!SameFormat(a, b) && near) c.verdict = Verdict::kRounded;
  }

  const Side &first_, &second_;
  int64_t piece_bytes_;
  PieceConverter converter_;
  std::vector<std::byte> a_, b_;
};

CheckpointComparison::CheckpointComparison(const ConvertSource& first, const ConvertSource& second, int64_t piece_bytes, int workers)
    : first_(std::make_unique<Side>(first)), second_(std::make_unique<Side>(second)) {
  for (int w = 0; w < workers; ++w) comparers_.push_back(std::make_unique<Comparer>(*first_, *second_, piece_bytes));
  for (const Side* side : {first_.get(), second_.get()}) {
    for (const TensorTask& task : side->tasks()) {
      if (index_.try_emplace(task.info.name, results_.size()).second) results_.push_back({.name = task.info.name});
    }
  }
}

CheckpointComparison::~CheckpointComparison() = default;

std::optional<size_t> CheckpointComparison::Find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? std::nullopt : std::optional(found->second);
}

void CheckpointComparison::Compare(size_t i, int worker) { comparers_[static_cast<size_t>(worker)]->Compare(results_[i]); }

size_t CheckpointComparison::PlaceInSecond(size_t i) const {
  const TensorTask* task = second_->Find(results_[i].name);
  return task == nullptr ? 0 : task->source;
}

}  // namespace fathom
