#include "fathom/train/metrics.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <ranges>

#include "fathom/base/file.h"
#include "fathom/base/log.h"

namespace fathom {
namespace {

constexpr size_t kLongestLine = 1 << 16;  // bytes that reach the file in one call, so that a run that is killed leaves no half line
constexpr std::string_view kLineStart = "{\"step\":";

// A pipe that nobody reads is an error rather than a wait without end.
std::FILE* OpenToAppend(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0666);
  if (fd < 0) {
    Throw(ErrorCode::kResource, "{}: cannot open for writing: {}", path.string(),
          errno == ENXIO ? "a pipe that no process reads" : std::strerror(errno));
  }
  ::fcntl(fd, F_SETFL, O_APPEND);
  return ::fdopen(fd, "a");
}

class JsonlSink : public ScalarSink {
 public:
  explicit JsonlSink(const std::filesystem::path& path) : path_(path), file_(OpenToAppend(path)) {
    std::setvbuf(file_, nullptr, _IOFBF, kLongestLine);
  }
  ~JsonlSink() override { std::fclose(file_); }

  void Write(const Scalars& scalars) override {
    nlohmann::ordered_json line;
    line["step"] = scalars.step;
    for (const auto& [name, value] : scalars.values) {
      if (std::isfinite(value)) {
        line[name] = value;
      } else {
        line[name] = fmt::format("{}", value);  // JSON has no NaN
      }
    }
    fmt::print(file_, "{}\n", line.dump());
    Flush();
  }
  void Flush() override {
    if (std::fflush(file_) != 0) Throw(ErrorCode::kResource, "{}: cannot write", path_.string());
  }

 private:
  std::filesystem::path path_;
  std::FILE* file_;
};

// The step of a line that JsonlSink wrote whole, else a number beyond all.
int64_t StepOfLine(std::string_view line) {
  int64_t step = 0;
  if (!line.starts_with(kLineStart) || !line.ends_with('}')) return std::numeric_limits<int64_t>::max();
  const auto [end, error] = std::from_chars(line.data() + kLineStart.size(), line.data() + line.size(), step);
  return error == std::errc() ? step : std::numeric_limits<int64_t>::max();
}

}  // namespace

void DropStepsFrom(const std::filesystem::path& path, int64_t first) {
  if (!std::filesystem::is_regular_file(path)) return;
  const std::string text = ReadTextFile(path, std::numeric_limits<size_t>::max());
  std::string kept;
  for (const auto line : std::views::split(text, '\n')) {
    const std::string_view view(line.begin(), line.end());
    if (!view.empty() && !kLineStart.starts_with(view.substr(0, kLineStart.size()))) {
      Throw(ErrorCode::kInput, "{}: holds lines that are no training's metrics, and would lose them; give another file", path.string());
    }
    if (StepOfLine(view) < first) kept.append(view).append("\n");
  }
  if (kept != text) WriteFileAtomically(std::filesystem::canonical(path), kept);
}

std::unique_ptr<ScalarSink> OpenJsonlSink(const std::filesystem::path& path) { return std::make_unique<JsonlSink>(path); }

Scalars StepScalars(int64_t step, const StepReport& r, const StepTiming& t, double learning_rate) {
  Scalars s{.step = step};
  s.Add("learning/loss", r.loss);
  if (r.trains_lm) {
    s.Add("learning/lm_loss", r.lm_loss);
    s.Add("learning/perplexity", std::exp(r.lm_loss));
  }
  s.Add("learning/z_loss", r.sums.main.z_loss / (r.sums.main.weight + 1e-8));
  if (r.sums.mtp.weight > 0) s.Add("learning/mtp_loss", r.mtp_loss);
  if (r.balance_loss > 0) s.Add("learning/moe_lb_loss", r.balance_loss);
  if (r.indexer_loss > 0) {
    s.Add("learning/indexer_loss", r.indexer_loss);
    s.Add("learning/indexer_kl", r.indexer_kl);
  }
  s.Add("learning/total_weights", r.sums.main.weight);
  const double largest = r.max_attention_logit.value_or(r.sums.main.max_logit);
  if (largest > CrossEntropySums().max_logit) s.Add("learning/max_logits", largest);  // a warm-up has no logits
  s.Add("learning/grad_norm", r.optimizer.grad_norm);
  s.Add("learning/raw_grad_norm", r.optimizer.raw_grad_norm);
  s.Add("learning/param_norm", r.optimizer.param_norm);
  s.Add("learning/current_learning_rate", learning_rate);
  s.Add("optim/step_skipped", r.optimizer.applied ? 0 : 1);
  s.Add("perf/step_time_seconds", t.seconds);
  s.Add("perf/per_device_tflops", t.tflops);
  s.Add("perf/per_device_tflops_per_sec", t.tflops / t.seconds);
  s.Add("perf/per_device_tokens", t.tokens);
  s.Add("perf/per_device_tokens_per_sec", t.tokens / t.seconds);
  s.Add("perf/data_wait_share", t.data_seconds / t.seconds);
  s.Add("perf/fraction_of_peak", 1e3 * t.tflops / t.seconds / t.peak_gflops);
  if (t.slowest.rank >= 0) {
    s.Add("perf/slowest_rank", t.slowest.rank);
    s.Add("perf/slowest_rank_seconds", t.slowest.seconds);
    s.Add("perf/mean_rank_seconds", t.slowest.mean);
  }
  return s;
}

MeshTraffic TrafficOf(const Mesh& mesh) {
  MeshTraffic traffic{.seconds = mesh.world().traffic().seconds};
  for (const Axis axis : kAxes) {
    const Traffic along = mesh.comm(axis).traffic();
    traffic.along[static_cast<size_t>(axis)] = along;
    traffic.seconds += along.seconds;
    traffic.hidden_seconds += along.hidden_seconds;
  }
  return traffic;
}

void AddTraffic(const Mesh& mesh, const MeshTraffic& before, Scalars& scalars) {
  if (mesh.world().size() == 1) return;
  const MeshTraffic now = TrafficOf(mesh);
  for (const Axis axis : kAxes) {
    if (mesh.size(axis) == 1) continue;
    const Traffic &then = before.along[static_cast<size_t>(axis)], &after = now.along[static_cast<size_t>(axis)];
    const double seconds = after.seconds - then.seconds, hidden = after.hidden_seconds - then.hidden_seconds;
    scalars.Add(fmt::format("comm/bytes_sent/{}", AxisName(axis)), static_cast<double>(after.bytes_sent - then.bytes_sent));
    scalars.Add(fmt::format("comm/seconds/{}", AxisName(axis)), seconds);
    scalars.Add(fmt::format("comm/hidden_share/{}", AxisName(axis)), hidden > 0 ? hidden / (seconds + hidden) : 0);
  }
  scalars.Add("perf/comm_seconds", now.seconds - before.seconds);
  scalars.Add("perf/comm_hidden_seconds", now.hidden_seconds - before.hidden_seconds);
}

double EvalReport::bits_per_byte() const { return sums.main.loss / std::log(2.0) / text_bytes; }

Scalars EvalScalars(int64_t step, const EvalReport& r) {
  Scalars s{.step = step};
  s.Add("eval/avg_loss", r.loss());
  s.Add("eval/avg_perplexity", std::exp(r.loss()));
  s.Add("eval/total_weights", r.sums.main.weight);
  if (r.compares_mtp) s.Add("eval/avg_mtp_acceptance_rate_percent", r.mtp_acceptance_percent());
  if (r.text_bytes > 0) s.Add("eval/bits_per_byte", r.bits_per_byte());
  s.Add("eval/step_time_seconds", r.seconds);
  return s;
}

std::string EvalLine(int64_t step, const EvalReport& r) {
  std::string line = fmt::format("eval metrics after step: {}, loss={:.4f}, perplexity={:.3f}, total_weights={:.0f}", step, r.loss(),
                                 std::exp(r.loss()), r.sums.main.weight);
  if (r.text_bytes > 0) line += fmt::format(", bits per byte={:.4f}", r.bits_per_byte());
  if (r.compares_mtp) line += fmt::format(", MTP acceptance={:.1f} %", r.mtp_acceptance_percent());
  return line;
}

std::string ConsoleLine(int64_t step, const StepReport& r, const StepTiming& t) {
  std::string line = fmt::format(
      "completed step: {}, seconds: {:.3f}, TFLOP/s/device: {:.3f}, Tokens/s/device: {:.3f}, total_weights: {:.0f}, loss: {:.3f}", step,
      t.seconds, t.tflops / t.seconds, t.tokens / t.seconds, r.sums.main.weight, r.loss);
  if (r.trains_lm) line += fmt::format(", lm_loss: {:.3f}, perplexity: {:.3f}", r.lm_loss, std::exp(r.lm_loss));
  if (r.indexer_loss > 0 || !r.trains_lm) line += fmt::format(", indexer_loss: {:.3g}, indexer_kl: {:.4g}", r.indexer_loss, r.indexer_kl);
  if (r.sums.mtp.weight > 0) line += fmt::format(", main_model_loss: {:.3f}, mtp_loss: {:.3f}", r.loss - r.mtp_loss, r.mtp_loss);
  if (t.slowest.rank >= 0) line += fmt::format(", slowest rank: {} ({:.0f} % behind the mean)", t.slowest.rank, 100 * t.slowest.behind());
  return line;
}

}  // namespace fathom
