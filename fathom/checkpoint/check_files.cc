#include "fathom/checkpoint/check_files.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <set>

#include "fathom/base/progress.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hf_names.h"
#include "fathom/checkpoint/manifest.h"
#include "fathom/kernels/vector_ops.h"

namespace fathom {
namespace {

constexpr int64_t kMaxPiece = 16 << 20;
constexpr double kProgressFrom = 1e9;  // bytes

bool IsScale(std::string_view name) { return name.ends_with(kScaleSuffix); }

// Dtypes that can hold a weight or a scale; U8 scales are E8M0.
std::optional<DType> FloatDType(const TensorEntry& entry) {
  switch (entry.dtype) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
    case DType::kF8E4M3:
    case DType::kF8E8M0: return entry.dtype;
    case DType::kU8: return IsScale(entry.name) ? std::optional(DType::kF8E8M0) : std::nullopt;
    default: return std::nullopt;
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

class Check {
 public:
  explicit Check(const CheckFilesOptions& options)
      : options_(options), piece_(std::clamp<int64_t>(options.memory_limit / (8 * NumThreads()) / 4096 * 4096, 1 << 16, kMaxPiece)) {}

  FilesReport Run() {
    Open();
    if (folder_) {
      report_.tensors = std::ssize(folder_->names());
      report_.bytes = folder_->NumBytes();
      if (config_) CompareTensors();
      for (const auto& file : folder_->files()) ScanFile(*file);
      if (config_) JudgeRouterBiases();
      if (!options_.manifest.empty()) UseManifest();
      if (!options_.against.empty()) CompareAgainst();
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
      Add(Severity::kMalformed, e.what());
    }
  }

  void Open() {
    Try([&] { config_ = ReadModelConfig(options_.input); });
    Try([&] { folder_ = TensorFolder::Open(options_.input); });
    if (folder_) return;
    for (const std::string& file : ModelFilesIn(options_.input)) Try([&] { SafetensorsFile::Open(file); });
  }

  void CompareTensors() {
    Try([&] { CompareWithConfig(*folder_, *config_, {}, [&](const std::string& text) { Add(Severity::kMalformed, text); }); });
  }

  struct Scan {
    ManifestEntry entry;
    ValueCounts counts;
  };

  void ScanFile(const SafetensorsFile& file) {
    const auto& entries = file.entries();
    std::vector<Scan> scans(entries.size());
    ParallelJobs(std::ssize(entries), [&](int64_t i) { scans[static_cast<size_t>(i)] = ScanTensor(file, entries[static_cast<size_t>(i)]); });
    file.file().DropPages(0, file.file().bytes().size());
    for (size_t i = 0; i < entries.size(); ++i) {
      JudgeValues(file, entries[i], scans[i].counts);
      manifest_[entries[i].name] = scans[i].entry;
    }
  }

  // Piece by piece: hash, look for NaN and infinity, give the pages back.
  Scan ScanTensor(const SafetensorsFile& file, const TensorEntry& entry) {
    const auto dtype = FloatDType(entry);
    const auto bytes = file.Bytes(entry);
    Hasher hasher;
    ValueCounts counts;
    for (size_t begin = 0; begin < bytes.size(); begin += static_cast<size_t>(piece_)) {
      const auto piece = bytes.subspan(begin, std::min(static_cast<size_t>(piece_), bytes.size() - begin));
      hasher.Update(piece);
      if (dtype) CountIn(piece, *dtype, static_cast<int64_t>(begin) / DTypeSize(*dtype), IsScale(entry.name), counts);
      file.file().DropPages(entry.begin + begin, piece.size());
    }
    Advance(entry.NumBytes());
    return {{std::string(DTypeName(entry.dtype)), entry.shape.ToString(), hasher.Hex()}, counts};
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

  void JudgeValues(const SafetensorsFile& file, const TensorEntry& entry, const ValueCounts& counts) {
    const std::string where = fmt::format("{}: tensor {}", file.path().string(), entry.name);
    if (counts.nan + counts.infinite > 0) {
      Add(Severity::kFault, fmt::format("{}: {} NaN and {} infinite values of {}, the first at index {}", where, counts.nan, counts.infinite,
                                        entry.shape.NumElements(), counts.first_non_finite));
    }
    if (IsScale(entry.name) && counts.zero + counts.negative > 0) {
      Add(Severity::kFault, fmt::format("{}: {} scales are zero and {} negative, of {}", where, counts.zero, counts.negative, entry.shape.NumElements()));
    }
  }

  // V3's choice of experts hangs on the bias: all zero means never trained, bf16 values mean that a conversion rounded it.
  void JudgeRouterBiases() {
    std::vector<std::string> zero, rounded;
    int64_t main_layers = 0;
    for (const ExpectedTensor& tensor : expected()) {
      const TensorEntry* entry = folder_->Find(tensor.name);
      if (tensor.kind != TensorKind::kRouterBias || entry == nullptr || !FloatDType(*entry)) continue;
      const ValueCounts counts = CountValues(folder_->Get(tensor.name));
      const bool all_zero = counts.zero == entry->shape.NumElements();
      main_layers += tensor.is_mtp ? 0 : 1;
      if (all_zero && !tensor.is_mtp) zero.push_back(tensor.name);
      if (!all_zero && counts.not_bf16 == 0) rounded.push_back(tensor.name);
    }
    if (!zero.empty()) {
      const bool everywhere = std::ssize(zero) == main_layers;
      Add(everywhere ? Severity::kNote : Severity::kFault,
          fmt::format("{} and {} more of {} router biases are all zero{}", zero[0], zero.size() - 1, main_layers, everywhere ? ", as in a model whose balancing never ran" : ""));
    }
    if (!rounded.empty()) {
      Add(Severity::kNote, fmt::format("{} and {} more router biases hold only BF16 values; if they were F32 once, a conversion rounded them", rounded[0], rounded.size() - 1));
    }
  }

  std::vector<ExpectedTensor> expected() {
    std::vector<ExpectedTensor> tensors;
    Try([&] { tensors = ExpectedTensors(*config_); });
    return tensors;
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
        Add(Severity::kFault, fmt::format("{}: tensor {}: {} {} with hash {}, the manifest says {} {} with {}", folder_->FileOf(name).path().string(), name, is.dtype,
                                          is.shape, is.hash, was.dtype, was.shape, was.hash));
      }
    }
    for (const auto& [name, is] : manifest_) {
      if (!stored.contains(name)) Add(Severity::kFault, fmt::format("tensor {}: in the checkpoint but not in the manifest {}", name, where));
    }
  }

  void CompareAgainst() {
    const TensorFolder other = TensorFolder::Open(options_.against);
    Try([&] { report_.comparisons = CompareFolders(*folder_, other, piece_); });
    for (const TensorComparison& c : report_.comparisons) {
      if (c.verdict == Verdict::kOnlyInFirst) Add(Severity::kFault, fmt::format("tensor {}: not in {}", c.name, options_.against.string()));
      if (c.verdict == Verdict::kOnlyInSecond) Add(Severity::kFault, fmt::format("tensor {}: only in {}", c.name, options_.against.string()));
      if (c.verdict == Verdict::kDifferent) {
        Add(Severity::kFault, fmt::format("tensor {}: {} against {}: max abs {:.6g}, cosine {:.9f}", c.name, c.first, c.second, c.difference.max_abs, c.difference.Cosine()));
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
  std::optional<TensorFolder> folder_;
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
