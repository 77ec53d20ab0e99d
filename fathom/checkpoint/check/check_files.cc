#include "fathom/checkpoint/check/check_files.h"

#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <set>

#include "fathom/base/progress.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hub/validate.h"
#include "fathom/checkpoint/orbax/orbax.h"
#include "fathom/checkpoint/safetensors/manifest.h"
#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {
namespace {

constexpr int64_t kMaxPiece = 16 << 20;
constexpr double kProgressFrom = 1e9;  // bytes

bool IsScale(std::string_view name) { return name.ends_with(kScaleSuffix); }

// Dtypes that can hold a weight or a scale; U8 scales are E8M0.
std::optional<DType> FloatDType(const SourceTensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
    case DType::kF8E4M3:
    case DType::kF8E8M0:
      return tensor.dtype;
    case DType::kU8:
      return IsScale(tensor.name) ? std::optional(DType::kF8E8M0) : std::nullopt;
    default:
      return std::nullopt;
  }
}

bool MayHoldNonFinite(ConstView x) {
  if (x.dtype() == DType::kF8E4M3) return HasNaNCode(x);
  if (x.dtype() == DType::kF8E8M0) return true;  // small: counted in any case
  return HasNonFinite(x);
}

std::vector<std::string> ModelFilesIn(const std::filesystem::path& dir) {
  std::vector<std::string> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    if (IsModelFile(it->path().filename().string())) files.push_back(it->path().string());
  }
  std::ranges::sort(files);
  return files;
}

// For decoded chunks that don't fit into memory: the input's own disk if it can be written (the files there have no name), else the
// system's.
std::filesystem::path ScratchFolder(const std::filesystem::path& input) {
  return ::access(input.c_str(), W_OK) == 0 ? input : std::filesystem::temp_directory_path();
}

class Check {
 public:
  explicit Check(const CheckFilesOptions& options)
      : options_(options), piece_(std::clamp<int64_t>(options.memory_limit / (10 * NumThreads()) / 4096 * 4096, 1 << 16, kMaxPiece)) {}

  FilesReport Run() {
    Open();
    if (source_) {
      report_.tensors = std::ssize(source_->tensors());
      for (const SourceTensor& tensor : source_->tensors()) report_.bytes += tensor.NumBytes();
      if (config_ && source_->folder() != nullptr) CompareTensors();
      if (!options_.against.empty()) OpenOther();
      ScanTensors();
      if (config_) JudgeRouterBiases();
      if (!options_.manifest.empty()) UseManifest();
      if (comparison_) JudgeComparisons();
    }
    return std::move(report_);
  }

 private:
  void Add(Severity severity, const std::string& text) {
    if (said_.insert(text).second) report_.findings.push_back({severity, text});
  }
  template <class F>
  void Try(const F& f) {
    try {
      f();
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kInput) throw;
      Add(Severity::kMalformed, e.what());
    }
  }

  SourceOptions OptionsFor(const std::filesystem::path& path) const {
    return {options_.memory_limit / 4, ScratchFolder(path), options_.model, {}, options_.ignore_config_keys};
  }

  void Open() {
    SourceOptions options = OptionsFor(options_.input);
    options.report = [this](const std::string& text) { Add(Severity::kMalformed, text); };
    if (FindOrbaxItems(options_.input)) {
      Try([&] { source_ = OpenConvertSource(options_.input, options); });
      if (source_) config_ = source_->config();
      return;
    }
    Try([&] { config_ = ReadModelConfig(options_.input, options_.ignore_config_keys); });
    Try([&] { ReadGenerationConfig(options_.input); });
    Try([&] { source_ = OpenConvertSource(options_.input, options); });
    if (source_) return;
    for (const std::string& file : ModelFilesIn(options_.input)) Try([&] { SafetensorsFile::Open(file); });
  }

  void CompareTensors() {
    Try([&] {
      const std::string left_out = LeaveOutAbsentMtp(*source_->folder(), *config_);
      if (!left_out.empty()) Add(Severity::kNote, left_out);
    });
    Try([&] { CompareWithConfig(*source_->folder(), *config_, {}, [&](const std::string& text) { Add(Severity::kMalformed, text); }); });
  }

  struct Scan {
    ManifestEntry entry;
    ValueCounts counts;
    std::string error;
  };

  void ScanTensors() {
    const auto n = source_->tensors().size();
    std::vector<Scan> scans(n);
    const std::vector<Job> jobs = Jobs();
    std::vector<std::vector<std::byte>> buffers(static_cast<size_t>(NumWorkers()));
    ParallelWorkerJobs(std::ssize(jobs), [&](int64_t j, int worker) {
      const Job& job = jobs[static_cast<size_t>(j)];
      try {
        if (job.tensor) scans[*job.tensor] = ScanTensor(*job.tensor, buffers[static_cast<size_t>(worker)]);
      } catch (const Error& e) {  // must not leave a parallel region
        scans[*job.tensor].error = e.what();
        return Fail(e);
      }
      Compare(job, worker);
    });
    for (size_t i = 0; i < n; ++i) {
      if (!scans[i].error.empty()) {
        Add(Severity::kMalformed, scans[i].error);
        continue;
      }
      JudgeValues(i, scans[i].counts);
      manifest_[source_->tensor(i).name] = scans[i].entry;
    }
  }

  // What is read and compared at one go, so that it need not be decoded twice.
  struct Job {
    std::optional<size_t> tensor;  // of the input
    std::optional<size_t> weight;  // of the comparison
  };

  // In the input's order, which is the best for reading it; in the other checkpoint's where only that one cares.
  std::vector<Job> Jobs() const {
    std::vector<Job> jobs;
    for (size_t i = 0; i < source_->tensors().size(); ++i)
      jobs.push_back({i, comparison_ ? comparison_->Find(source_->tensor(i).name) : std::nullopt});
    for (size_t w = 0; comparison_ && w < comparison_->results().size(); ++w) {
      if (!source_->Find(comparison_->results()[w].name)) jobs.push_back({std::nullopt, w});
    }
    if (comparison_ && other_->is_orbax() && !source_->is_orbax())
      std::ranges::stable_sort(jobs, {}, [&](const Job& job) { return job.weight ? comparison_->PlaceInSecond(*job.weight) : 0; });
    return jobs;
  }

  void Compare(const Job& job, int worker) {
    try {
      if (job.weight) comparison_->Compare(*job.weight, worker);
    } catch (const Error& e) {
      Fail(e);
    }
  }
  void Fail(const Error& e) {
    const std::lock_guard lock(mutex_);
    if (compare_error_.empty()) compare_error_ = e.what();
  }

  // Piece by piece: hash, look for NaN and infinity.
  Scan ScanTensor(size_t i, std::vector<std::byte>& buffer) {
    const SourceTensor& tensor = source_->tensor(i);
    const auto dtype = FloatDType(tensor);
    const int64_t width = DTypeSize(tensor.dtype);
    Hasher hasher;
    ValueCounts counts;
    ForPieces(tensor.shape.NumElements(), width, tensor.unit, piece_, [&](int64_t begin, int64_t count) {
      buffer.resize(static_cast<size_t>(count * width));
      source_->Read(i, begin, count, buffer);
      hasher.Update(buffer);
      if (dtype) CountIn(buffer, *dtype, begin, IsScale(tensor.name), counts);
      return true;
    });
    Advance(tensor.NumBytes());
    return {{std::string(DTypeName(tensor.dtype)), tensor.shape.ToString(), hasher.Hex()}, counts, ""};
  }

  static void CountIn(std::span<const std::byte> piece, DType dtype, int64_t first, bool scale, ValueCounts& counts) {
    const int64_t n = static_cast<int64_t>(piece.size()) / DTypeSize(dtype);
    const ConstView values(piece.data(), dtype, {1, n});
    if (!scale && !MayHoldNonFinite(values)) return;
    const ValueCounts more = CountValues(values);
    counts.nan += more.nan;
    counts.infinite += more.infinite;
    counts.zero += more.zero;
    counts.negative += more.negative;
    if (counts.first_non_finite < 0 && more.first_non_finite >= 0) counts.first_non_finite = first + more.first_non_finite;
  }

  void JudgeValues(size_t i, const ValueCounts& counts) {
    const std::string where = source_->Where(i);
    const int64_t elements = source_->tensor(i).shape.NumElements();
    if (counts.nan + counts.infinite > 0) {
      Add(Severity::kFault, fmt::format("{}: {} NaN and {} infinite values of {}, the first at index {}", where, counts.nan,
                                        counts.infinite, elements, counts.first_non_finite));
    }
    if (IsScale(source_->tensor(i).name) && counts.zero + counts.negative > 0) {
      Add(Severity::kFault, fmt::format("{}: {} scales are zero and {} negative, of {}", where, counts.zero, counts.negative, elements));
    }
  }

  // What a router bias holds; nullopt: absent, unreadable, or no floats.
  std::optional<ValueCounts> CountBias(const std::string& name) {
    const auto i = source_->Find(name);
    const auto dtype = i ? FloatDType(source_->tensor(*i)) : std::nullopt;
    if (!dtype || !manifest_.contains(name)) return std::nullopt;
    std::vector<std::byte> values(static_cast<size_t>(source_->tensor(*i).NumBytes()));
    source_->Read(*i, 0, source_->tensor(*i).shape.NumElements(), values);
    return CountValues(ConstView(values.data(), *dtype, source_->tensor(*i).shape));
  }

  // V3's choice of experts hangs on the bias: all zero means never trained, bf16 values mean that a conversion rounded it.
  void JudgeRouterBiases() {
    std::vector<std::string> zero, rounded;
    int64_t main_layers = 0;
    std::optional<ModelSpec> spec;
    Try([&] { spec.emplace(*config_); });
    if (!spec) return;
    for (const ParamSpec& tensor : *spec) {
      const auto counts = LearnsByCounting(tensor.role) ? CountBias(tensor.name) : std::nullopt;
      if (!counts) continue;
      const bool all_zero = counts->zero == tensor.shape.NumElements();
      main_layers += tensor.is_mtp() ? 0 : 1;
      if (all_zero && !tensor.is_mtp()) zero.push_back(tensor.name);
      if (!all_zero && counts->not_bf16 == 0) rounded.push_back(tensor.name);
    }
    if (!zero.empty()) {
      const bool everywhere = std::ssize(zero) == main_layers;
      Add(everywhere ? Severity::kNote : Severity::kFault,
          fmt::format("{} and {} more of {} router biases are all zero{}", zero[0], zero.size() - 1, main_layers,
                      everywhere ? ", as in a model whose balancing never ran" : ""));
    }
    if (!rounded.empty()) {
      Add(Severity::kNote,
          fmt::format("{} and {} more router biases hold only BF16 values; if they were F32 once, a conversion rounded them", rounded[0],
                      rounded.size() - 1));
    }
  }

  void UseManifest() {
    if (std::filesystem::exists(options_.manifest)) return CompareManifest(ReadManifest(options_.manifest));
    if (report_.Count(Severity::kMalformed) > 0) return;
    WriteManifest(options_.manifest, manifest_);
    report_.manifest_written = true;
  }

  void CompareManifest(const Manifest& stored) {
    const std::string where = options_.manifest.string();
    for (const auto& [name, was] : stored) {
      const auto it = manifest_.find(name);
      if (it == manifest_.end()) {
        Add(Severity::kFault, fmt::format("tensor {}: in the manifest {} but not in the checkpoint", name, where));
      } else if (it->second != was) {
        const ManifestEntry& is = it->second;
        Add(Severity::kFault, fmt::format("{}: {} {} with hash {}, the manifest says {} {} with {}", source_->Where(*source_->Find(name)),
                                          is.dtype, is.shape, is.hash, was.dtype, was.shape, was.hash));
      }
    }
    for (const auto& [name, is] : manifest_) {
      if (!stored.contains(name))
        Add(Severity::kFault, fmt::format("tensor {}: in the checkpoint but not in the manifest {}", name, where));
    }
  }

  void OpenOther() {
    other_ = OpenConvertSource(options_.against, OptionsFor(options_.against));
    Try([&] { comparison_ = std::make_unique<CheckpointComparison>(*source_, *other_, piece_, NumWorkers()); });
  }

  void JudgeComparisons() {
    if (!compare_error_.empty()) return Add(Severity::kMalformed, compare_error_);
    report_.comparisons = comparison_->results();
    for (const TensorComparison& c : report_.comparisons) {
      if (c.verdict == Verdict::kOnlyInFirst) Add(Severity::kFault, fmt::format("tensor {}: not in {}", c.name, options_.against.string()));
      if (c.verdict == Verdict::kOnlyInSecond)
        Add(Severity::kFault, fmt::format("tensor {}: only in {}", c.name, options_.against.string()));
      if (c.verdict == Verdict::kDifferent) {
        Add(Severity::kFault, fmt::format("tensor {}: {} against {}: max abs {:.6g}, cosine {:.9f}", c.name, c.first, c.second,
                                          c.difference.max_abs, c.difference.Cosine()));
      }
    }
  }

  void Advance(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    done_ += bytes;
    if (static_cast<double>(report_.bytes) < kProgressFrom) return;
    if (!progress_) progress_.emplace("checking", "GB", static_cast<double>(report_.bytes), 1e9);
    progress_->Update(static_cast<double>(done_));
  }

  const CheckFilesOptions& options_;
  const int64_t piece_;
  std::optional<ModelConfig> config_;
  std::unique_ptr<ConvertSource> source_, other_;
  std::unique_ptr<CheckpointComparison> comparison_;
  std::string compare_error_;  // of the first weight that could not be read
  Manifest manifest_;
  FilesReport report_;
  std::set<std::string> said_;
  std::mutex mutex_;
  std::optional<Progress> progress_;
  int64_t done_ = 0;
};

}  // namespace

int64_t FilesReport::Count(Severity severity) const { return std::ranges::count(findings, severity, &Finding::severity); }

int FilesReport::ExitCode() const {
  if (Count(Severity::kMalformed) > 0) return static_cast<int>(ErrorCode::kInput);
  return Count(Severity::kFault) > 0 ? static_cast<int>(ErrorCode::kFailed) : 0;
}

FilesReport CheckFiles(const CheckFilesOptions& options) { return Check(options).Run(); }

}  // namespace fathom
