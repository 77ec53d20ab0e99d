#include "fathom/base/trace_window.h"

#include <fmt/format.h>

#include "fathom/base/log.h"

namespace fathom {
namespace {

constexpr size_t kTableRows = 16;

}  // namespace

void TraceWindow::Begin(int64_t step) {
  if (options_.count == 0) return;
  slice_.reset();
  if (step < options_.first) return;
  if (step >= options_.first + options_.count) return Write();
  if (!trace_) {
    trace_.emplace(options_.rank);
    scope_.emplace(*trace_);
  }
  slice_.emplace(options_.what.c_str(), step);
  last_ = step;
}

void TraceWindow::Write() {
  slice_.reset();
  scope_.reset();
  if (!trace_) return;
  const std::string rank = options_.rank > 0 ? fmt::format("_rank_{}", options_.rank) : "";
  const std::filesystem::path path = options_.folder / fmt::format("{}s_{}-{}{}.json", options_.what, options_.first, last_, rank);
  try {
    std::filesystem::create_directories(options_.folder);
    trace_->Write(path);
    summary_ = trace_->Table(kTableRows);
    summary_.insert(summary_.begin(), fmt::format("traced {}s {} to {}: {} (open it in ui.perfetto.dev)", options_.what, options_.first,
                                                  last_, path.string()));
  } catch (const std::exception& error) {
    spdlog::warn("no trace: {}", error.what());
  }
  trace_.reset();
  options_.count = 0;
}

void TraceWindow::End() {
  if (options_.count > 0 && !trace_)
    spdlog::warn("no {} was traced: the run ended before {} {}", options_.what, options_.what, options_.first);
  Write();
  for (const std::string& line : summary_) spdlog::info("{}", line);
  summary_.clear();
}

}  // namespace fathom
