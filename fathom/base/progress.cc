#include "fathom/base/progress.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "fathom/base/log.h"

namespace fathom {
namespace {
constexpr double kTerminalPeriod = 0.2, kLogPeriod = 30;  // seconds between two lines

std::string Amount(double value) { return value >= 1000 ? fmt::format("{:.0f}", value) : fmt::format("{:.4g}", value); }

}  // namespace

std::string FormatSeconds(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

std::string FormatBytes(double bytes) {
  if (bytes >= 1e12) return fmt::format("{:.2f} TB", bytes / 1e12);
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.1f} MB", bytes / 1e6);
  if (bytes >= 1e3) return fmt::format("{:.1f} kB", bytes / 1e3);
  return fmt::format("{:.0f} B", bytes);
}

Progress::Progress(std::string what, std::string unit, double total, double unit_size, double before)
    : what_(std::move(what)), unit_(std::move(unit)), total_(total), unit_size_(unit_size), before_(before) {}

void Progress::Update(double done, const std::string& note) {
  if (clock_.Seconds() < next_) return;
  Draw(done, note);
  next_ = clock_.Seconds() + (line_.can_draw() ? kTerminalPeriod : kLogPeriod);
}

void Progress::Finish() { Draw(total_, ""); }

void Progress::Draw(double done, const std::string& note) {
  const double seconds = clock_.Seconds(), rate = seconds > 0 ? (done - before_) / seconds : 0;
  std::vector<std::string> parts = {fmt::format("{} {}/{} {}", what_, Amount(done / unit_size_), Amount(total_ / unit_size_), unit_),
                                    fmt::format("{} {}/s", Amount(rate / unit_size_), unit_)};
  if (rate > 0 && done < total_) parts.push_back(FormatSeconds((total_ - done) / rate) + " left");
  if (!note.empty()) parts.push_back(note);
  if (!line_.can_draw()) return spdlog::info("{}", fmt::join(parts, ", "));
  line_.Draw(parts);
}

}  // namespace fathom
