// What `fathom plan` is told about the machine, and what it says.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/progress.h"
#include "fathom/config/model_config.h"
#include "fathom/config/run_config.h"
#include "fathom/machine/limits.h"
#include "fathom/tensor/dtype.h"

namespace fathom {

// Speeds of the machine, from a file or measured when first asked for.
class Machine {
 public:
  explicit Machine(const RunConfig& config)
      : path_(config.String("machine")), disk_(config.Float("disk_gb_s")), memory_(config.Int("memory")) {
    if (!path_.empty()) figures_ = ReadJsonFile(path_);
  }

  double Gflops(DType dtype) {
    return Figure(ProductsKey(dtype), [&] { return MeasureProducts(dtype); });
  }
  double MemoryGbS() { return Figure("read_gb_s", MeasureMemoryRead); }
  // False: the machine is described by a file that has nothing on that.
  bool KnowsProducts(DType dtype) const { return path_.empty() || figures_.contains(ProductsKey(dtype)); }
  bool KnowsDisk() const { return disk_ > 0 || path_.empty() || figures_.contains("disk_write_gb_s"); }
  double DiskGbS(const std::filesystem::path& dir) {
    return disk_ > 0 ? disk_ : Figure("disk_write_gb_s", [&] { return MeasureDiskWrite(dir); });
  }
  // Of memory=, or the machine's.
  int64_t MemoryBytes() const { return memory_ > 0 ? memory_ : figures_.value("memory_bytes", fathom::MemoryBytes()); }

 private:
  static const char* ProductsKey(DType dtype) { return dtype == DType::kBF16 ? "gemm_bf16_gflops" : "gemm_f32_gflops"; }
  template <class F>
  double Figure(const std::string& key, const F& measure) {
    if (path_.empty() && !figures_.contains(key)) figures_[key] = measure().median;
    const auto found = figures_.find(key);
    if (found == figures_.end() || !found->is_number() || *found <= 0)
      Throw(ErrorCode::kInput, "{}: no {} in it; fathom bench json=FILE writes it", path_, key);
    return *found;
  }

  std::string path_;
  double disk_;
  int64_t memory_;
  Json figures_ = Json::object();
};

inline std::string ShownBytes(int64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }
inline std::string ShownSeconds(double seconds) { return seconds < 60 ? fmt::format("{:.3g} s", seconds) : FormatSeconds(seconds); }

// What is printed, and the same as JSON.
class Report {
 public:
  void Section(const std::string& name) {
    section_ = name;
    text_ += name + "\n";
  }
  void Bytes(const std::string& what, int64_t bytes, const std::string& note = "") { Row(what, "bytes", bytes, ShownBytes(bytes), note); }
  void Seconds(const std::string& what, double seconds, const std::string& note) {
    Row(what, "seconds", seconds, ShownSeconds(seconds), note);
  }
  void TokensPerSecond(const std::string& what, double rate, const std::string& note) {
    Row(what, "tokens_per_s", rate, fmt::format("{:.3g} tokens/s", rate), note);
  }
  void Count(const std::string& what, int64_t n, const std::string& note = "") { Row(what, "count", n, std::to_string(n), note); }
  // A line of text, and whatever it stands for.
  void Line(const std::string& text, const std::string& key, Json value) {
    text_ += text + "\n";
    json_[section_][key] = std::move(value);
  }

  void Write(const std::string& json) const {
    if (!json.empty()) WriteOutput(json, JsonText(json_));
    if (json != "-" && json != "/dev/stdout") fmt::print("{}", text_);
  }

 private:
  // The key of "step at least" in seconds is step_at_least_seconds.
  void Row(const std::string& what, const std::string& unit, const Json& value, const std::string& shown, const std::string& note) {
    text_ += fmt::format("  {:<24} {:>16}  {}\n", what, shown, note);
    std::string key = what + "_" + unit;
    std::ranges::replace(key, ' ', '_');
    json_[section_][key] = value;
  }
  std::string section_, text_;
  Json json_ = Json::object();
};

// What every plan of a model begins with.
void AddModel(Report& report, const ModelConfig& config);
// Of a process beside what it computes with: code, libraries and what those keep, in a run of either kind. A rank has MPI's, too.
enum class Program { kTraining, kDecoding };
int64_t ProgramBytes(Program program, bool alone);
// The row of it in a table of memory.
void AddProgram(Report& report, Program program, bool alone);
// The end of a table: fits that into a host's memory?
void AddMemoryTotal(Report& report, const Machine& machine, int64_t total);

}  // namespace fathom
