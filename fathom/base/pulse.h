// What a thread is at, for others that watch whether it gets on (parallel/watch.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace fathom {

enum class Activity : int32_t { kStarting, kReading, kForward, kBackward, kUpdating, kSaving, kEnding, kFailed };

// At one moment; travels between ranks as it is.
struct PulseReading {
  int64_t beats = 0;  // parallel loops begun and exchanges so far
  int64_t step = -1;  // -1: none yet
  int32_t layer = -1;
  Activity activity = Activity::kStarting;
  int32_t waiting = 0;  // 1: for other ranks
  bool operator==(const PulseReading&) const = default;
  // A thread that computes beats every few seconds at least; one that reads, saves or waits for others need not.
  bool computes() const { return waiting == 0 && activity >= Activity::kForward && activity <= Activity::kUpdating; }
};

// "step 3, layer 2, backward, waiting for other ranks"
std::string Describe(const PulseReading& reading);

// One thread writes, any may read.
class Pulse {
 public:
  // What the calling thread does is noted in `pulse` while this lives; threads without one note nothing.
  class Scope {
   public:
    explicit Scope(Pulse& pulse) { current_ = &pulse; }
    ~Scope() { current_ = nullptr; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };
  static void Beat() {
    if (current_ != nullptr) Add(current_->beats_);
  }
  static void At(Activity activity) { Note(&Pulse::activity_, activity); }
  static void AtStep(int64_t step) { Note(&Pulse::step_, step); }
  static void AtLayer(int64_t layer) { Note(&Pulse::layer_, static_cast<int32_t>(layer)); }
  static void Waiting(bool waits) { Note(&Pulse::waiting_, int32_t{waits}); }

  PulseReading Read() const {
    return {beats_.load(std::memory_order_relaxed), step_.load(std::memory_order_relaxed), layer_.load(std::memory_order_relaxed),
            activity_.load(std::memory_order_relaxed), waiting_.load(std::memory_order_relaxed)};
  }

 private:
  static void Add(std::atomic<int64_t>& x) { x.store(x.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
  template <class T>
  static void Note(std::atomic<T> Pulse::*member, T value) {
    if (current_ == nullptr) return;
    (current_->*member).store(value, std::memory_order_relaxed);
    Add(current_->beats_);
  }

  std::atomic<int64_t> beats_ = 0, step_ = -1;
  std::atomic<int32_t> layer_ = -1, waiting_ = 0;
  std::atomic<Activity> activity_ = Activity::kStarting;
  static inline constinit thread_local Pulse* current_ = nullptr;
};

}  // namespace fathom
