// Where time goes: slices of it, for a viewer of Chrome's trace events (ui.perfetto.dev).
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace fathom {

// What was recorded. A thread records while a TraceScope lives on it; all others only where TraceWorkers says so.
class Trace {
 public:
  // process: under this number a viewer shows it; of several ranks the rank.
  explicit Trace(int process = 0) : process_(process) {}

  struct Slice {
    const char* name;
    int64_t number;      // "layer 3"; below 0: none
    int64_t layer;       // the slice is, or lies in, this one's; below 0: none
    int thread;          // 0: the one that has the scope
    int64_t begin, end;  // nanoseconds since the trace began
    double flops, bytes;
    int64_t inside;  // nanoseconds of slices that lie in this one
    // Of the loops in it, in a plan: jobs of the one that is divided worst, and the most that a thread has of it over the mean of all.
    int64_t jobs = 0;
    double largest_over_mean = 0;
  };
  const std::vector<Slice>& slices() const { return slices_; }

  // {"traceEvents": [...]}, each slice with its layer, FLOP and bytes where it has any. Throws Error(kResource).
  void Write(const std::filesystem::path& path) const;
  // The slices' own time by name, without what lies in others: a line for each of the first `most`, the longest first.
  std::vector<std::string> Table(size_t most) const;

  // For the classes below.
  void Open(const char* name, int64_t number, bool is_layer);
  void Close(double flops, double bytes);
  void NoteLoop(int64_t jobs, double largest_over_mean);
  void Add(const Slice& slice) { slices_.push_back(slice); }
  int64_t Now() const { return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start_).count(); }
  const Slice* Innermost() const { return open_.empty() ? nullptr : &slices_[open_.back()]; }

 private:
  std::string NameOf(const Slice& slice) const;
  int process_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::vector<Slice> slices_;
  std::vector<size_t> open_;  // one in the other
};

// While one lives, this thread's slices are recorded in `trace`, which outlives it.
class TraceScope {
 public:
  explicit TraceScope(Trace& trace);
  ~TraceScope();
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

  static Trace* Active();  // null: none lives on this thread

 private:
  Trace* outer_;
};

// A slice of time from here to the end of the block. Without a TraceScope it is the test of a pointer.
class TraceSlice {
 public:
  // name: a literal.
  explicit TraceSlice(const char* name, int64_t number = -1) : TraceSlice(name, number, false) {}
  static TraceSlice OfLayer(int64_t layer) { return {"layer", layer, true}; }
  ~TraceSlice() {
    if (trace_ != nullptr) trace_->Close(flops_, bytes_);
  }
  TraceSlice(const TraceSlice&) = delete;
  TraceSlice& operator=(const TraceSlice&) = delete;

  bool recorded() const { return trace_ != nullptr; }
  // What is done in it, slices that lie in it aside; ask recorded() before computing it.
  void AddWork(double flops, double bytes) {
    flops_ += flops;
    bytes_ += bytes;
  }

 private:
  TraceSlice(const char* name, int64_t number, bool is_layer) : trace_(TraceScope::Active()) {
    if (trace_ != nullptr) trace_->Open(name, number, is_layer);
  }
  Trace* trace_;
  double flops_ = 0, bytes_ = 0;
};

// Of the innermost slice, how long each other thread worked at it: from its first job to the end of its last.
class TraceWorkers {
 public:
  explicit TraceWorkers(int threads);
  ~TraceWorkers();
  TraceWorkers(const TraceWorkers&) = delete;
  TraceWorkers& operator=(const TraceWorkers&) = delete;

  // One job of thread `thread`, called by it.
  template <class F>
  void Run(int thread, const F& job) {
    if (trace_ == nullptr || thread == 0) return job();
    Span& span = spans_[static_cast<size_t>(thread)];
    if (span.end == 0) span.begin = trace_->Now();
    job();
    span.end = trace_->Now();
  }

 private:
  struct alignas(64) Span {
    int64_t begin = 0, end = 0;
  };
  Trace* trace_;
  std::vector<Span> spans_;
};

}  // namespace fathom
