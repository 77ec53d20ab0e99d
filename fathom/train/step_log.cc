#include "fathom/train/step_log.h"

#include <vector>

#include "fathom/base/log.h"
#include "fathom/base/progress.h"
#include "fathom/machine/limits.h"

namespace fathom {
namespace {

constexpr double kDrawPeriod = 0.2;  // seconds

}  // namespace

void StepLog::Completed(int64_t step, const StepReport& report, const StepTiming& timing) {
  drawn_.seconds += timing.seconds;
  drawn_.tflops += timing.tflops;
  drawn_.tokens += timing.tokens;
  drawn_.peak_gflops = timing.peak_gflops;
  drawn_.slowest = timing.slowest;
  pending_ = ConsoleLine(step, report, timing);
  const bool due =
      step == first_step_ || step + 1 == options_.steps || step % options_.log_period == 0 || since_log_.Seconds() >= options_.log_seconds;
  if (due) End();
  const bool at_once = due && options_.mesh.world().size() == 1;  // a launcher prints a rank's lines a moment later
  if (due) since_draw_.Restart();
  if (at_once || since_draw_.Seconds() >= kDrawPeriod) Draw(step, report.loss);
}

void StepLog::End() {
  Clear();
  if (!pending_.empty()) spdlog::info("{}", pending_);
  pending_.clear();
  since_log_.Restart();
}

void StepLog::Draw(int64_t step, double loss) {
  if (!options_.mesh.is_first() || !line_.can_draw() || !spdlog::should_log(spdlog::level::info)) return;
  const double left = clock_.Seconds() / static_cast<double>(step + 1 - first_step_) * static_cast<double>(options_.steps - step - 1);
  std::vector<std::string> parts = {fmt::format("step {}/{}", step + 1, options_.steps),
                                    fmt::format("loss {:.3f}", loss),
                                    fmt::format("{:.0f} tokens/s", drawn_.tokens / drawn_.seconds),
                                    fmt::format("{:.0f} % of peak", 1e5 * drawn_.tflops / drawn_.seconds / drawn_.peak_gflops),
                                    FormatSeconds(left) + " left",
                                    FormatBytes(static_cast<double>(OwnMemoryBytes()))};
  if (drawn_.slowest.rank >= 0)
    parts.push_back(fmt::format("slowest rank {} (+{:.0f} %)", drawn_.slowest.rank, 100 * drawn_.slowest.behind()));
  line_.Draw(parts);
  since_draw_.Restart();
  drawn_ = {};
}

}  // namespace fathom
