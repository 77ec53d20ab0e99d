#include "fathom/base/trace.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/base/file.h"

namespace fathom {
namespace {

thread_local Trace* active_trace = nullptr;

// Own time of all slices of one name.
struct Total {
  std::string_view name;
  int64_t count = 0, nanoseconds = 0;
  double flops = 0, bytes = 0;
};

double Seconds(int64_t nanoseconds) { return 1e-9 * static_cast<double>(nanoseconds); }

std::string Rate(double amount, int64_t nanoseconds) {
  return amount > 0 && nanoseconds > 0 ? fmt::format("{:.1f}", 1e-9 * amount / Seconds(nanoseconds)) : "";
}

// Of a slice, as the members of a JSON object.
std::string Arguments(const Trace::Slice& s) {
  const double seconds = Seconds(std::max<int64_t>(1, s.end - s.begin));
  std::vector<std::string> members;
  if (s.layer >= 0) members.push_back(fmt::format("\"layer\":{}", s.layer));
  if (s.flops > 0) members.push_back(fmt::format("\"flops\":{:.0f},\"GFLOP/s\":{:.4g}", s.flops, 1e-9 * s.flops / seconds));
  if (s.bytes > 0) members.push_back(fmt::format("\"bytes\":{:.0f},\"GB/s\":{:.4g}", s.bytes, 1e-9 * s.bytes / seconds));
  return fmt::format("{}", fmt::join(members, ","));
}

}  // namespace

void Trace::Open(const char* name, int64_t number, bool is_layer) {
  const int64_t layer = is_layer ? number : open_.empty() ? -1 : slices_[open_.back()].layer;
  open_.push_back(slices_.size());
  slices_.push_back({name, number, layer, 0, Now(), -1, 0, 0, 0});
}

void Trace::Close(double flops, double bytes) {
  FATHOM_CHECK(!open_.empty(), "no slice is open");
  Slice& slice = slices_[open_.back()];
  open_.pop_back();
  slice.end = Now();
  slice.flops = flops;
  slice.bytes = bytes;
  if (!open_.empty()) slices_[open_.back()].inside += slice.end - slice.begin;
}

void Trace::NoteLoop(int64_t jobs, double largest_over_mean) {
  if (open_.empty() || slices_[open_.back()].largest_over_mean >= largest_over_mean) return;
  slices_[open_.back()].jobs = jobs;
  slices_[open_.back()].largest_over_mean = largest_over_mean;
}

std::string Trace::NameOf(const Slice& slice) const {
  return slice.number < 0 ? std::string(slice.name) : fmt::format("{} {}", slice.name, slice.number);
}

// Times are in microseconds.
void Trace::Write(const std::filesystem::path& path) const {
  std::string text = fmt::format(
      "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":{0},\"args\":{{\"name\":\"rank "
      "{0}\"}}}}",
      process_);
  for (const Slice& s : slices_) {
    if (s.end < 0) continue;  // still open
    fmt::format_to(std::back_inserter(text),
                   ",\n{{\"ph\":\"X\",\"name\":\"{}\",\"pid\":{},\"tid\":{},\"ts\":{:.3f},\"dur\":{:.3f},\"args\":{{{}}}}}", NameOf(s),
                   process_, s.thread, 1e-3 * static_cast<double>(s.begin), 1e-3 * static_cast<double>(s.end - s.begin), Arguments(s));
  }
  text += "\n]}\n";
  WriteFileAtomically(path, text);
}

std::vector<std::string> Trace::Table(size_t most) const {
  std::map<std::string_view, Total> totals;
  int64_t all = 0;
  for (const Slice& s : slices_) {
    if (s.thread != 0 || s.end < 0) continue;
    Total& total = totals[s.name];
    total.name = s.name;
    ++total.count;
    total.nanoseconds += s.end - s.begin - s.inside;
    total.flops += s.flops;
    total.bytes += s.bytes;
    all += s.end - s.begin - s.inside;
  }
  std::vector<Total> sorted;
  for (const auto& [name, total] : totals) sorted.push_back(total);
  std::ranges::sort(sorted, std::greater(), &Total::nanoseconds);
  std::vector<std::string> lines = {
      fmt::format("  {:<28} {:>6} {:>10} {:>8} {:>9} {:>7}", "own time", "share", "ms", "times", "GFLOP/s", "GB/s")};
  for (const Total& t : sorted) {
    if (lines.size() > most) break;
    lines.push_back(fmt::format("  {:<28} {:>4.1f} % {:>10.1f} {:>8} {:>9} {:>7}", t.name,
                                100 * Seconds(t.nanoseconds) / Seconds(std::max<int64_t>(1, all)), 1e3 * Seconds(t.nanoseconds), t.count,
                                Rate(t.flops, t.nanoseconds), Rate(t.bytes, t.nanoseconds)));
  }
  return lines;
}

TraceScope::TraceScope(Trace& trace) : outer_(active_trace) { active_trace = &trace; }

TraceScope::~TraceScope() { active_trace = outer_; }

Trace* TraceScope::Active() { return active_trace; }

TraceWorkers::TraceWorkers(int threads) : trace_(TraceScope::Active()) {
  if (trace_ != nullptr && trace_->Innermost() != nullptr) {
    spans_.resize(static_cast<size_t>(threads));
  } else {
    trace_ = nullptr;
  }
}

TraceWorkers::~TraceWorkers() {
  if (trace_ == nullptr) return;
  const Trace::Slice of = *trace_->Innermost();
  for (size_t t = 1; t < spans_.size(); ++t) {
    if (spans_[t].end > 0) trace_->Add({of.name, of.number, of.layer, static_cast<int>(t), spans_[t].begin, spans_[t].end, 0, 0, 0});
  }
}

}  // namespace fathom
