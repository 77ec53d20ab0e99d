// What a process is at, for others that watch whether it gets on (parallel/watch.h).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

namespace fathom {

enum class Activity : int32_t { kStarting, kReading, kForward, kBackward, kUpdating, kSaving, kEnding, kFailed };

// At one moment; travels between ranks as it is.
struct PulseReading {
  int64_t beats = 0;  // loops begun, jobs of loops done, blocks of files read or written, exchanges so far
  int64_t step = -1;  // -1: none yet
  int32_t layer = -1;
  Activity activity = Activity::kStarting;
  int32_t waiting = 0;  // 1: for other ranks
  int32_t outside = 0;  // 1: for what gives no sign of life: a disk that syncs, standard input
  bool operator==(const PulseReading&) const = default;
  bool computes() const { return activity >= Activity::kForward && activity <= Activity::kUpdating; }
};

// "step 3, layer 2, backward, waiting for other ranks"
std::string Describe(const PulseReading& reading);

// The main thread notes what it is at; every thread of the process beats, and any may read. Costs a branch where nobody watches.
class Pulse {
 public:
  // The calling thread is the process's main one, and what goes on is noted in `pulse`, while this lives.
  class Scope {
   public:
    explicit Scope(Pulse& pulse) {
      main_ = &pulse;
      process_.store(&pulse, std::memory_order_release);
    }
    ~Scope() {
      main_ = nullptr;
      process_.store(nullptr, std::memory_order_release);
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };
  // While it lives the main thread waits for another thread of the process: it waits for other ranks whenever that one does.
  class Beside {
   public:
    Beside() { Note(&Pulse::beside_, 1); }
    ~Beside() { Note(&Pulse::beside_, 0); }
    Beside(const Beside&) = delete;
    Beside& operator=(const Beside&) = delete;
  };
  // While it lives the calling thread waits for what gives no sign of life.
  class Outside {
   public:
    Outside() : pulse_(OfProcess()) { Count(1); }
    ~Outside() { Count(-1); }
    Outside(const Outside&) = delete;
    Outside& operator=(const Outside&) = delete;

   private:
    void Count(int32_t n) const {
      if (pulse_ == nullptr) return;
      pulse_->outside_.fetch_add(n, std::memory_order_relaxed);
      pulse_->Block();
    }
    Pulse* pulse_;
  };

  // Null: nobody watches this process.
  static Pulse* OfProcess() { return process_.load(std::memory_order_acquire); }
  // Of a thread in a loop, which has a line of memory of its own.
  void BeatOf(int worker) { Add(workers_[static_cast<size_t>(worker) % workers_.size()].beats); }
  // Of any thread, now and then.
  void Block() { blocks_.fetch_add(1, std::memory_order_relaxed); }
  static void NoteBlock() {
    if (Pulse* pulse = OfProcess()) pulse->Block();
  }
  static void Beat() {
    if (main_ != nullptr) Add(main_->beats_);
  }
  static void At(Activity activity) { Note(&Pulse::activity_, activity); }
  static void AtStep(int64_t step) { Note(&Pulse::step_, step); }
  static void AtLayer(int64_t layer) { Note(&Pulse::layer_, static_cast<int32_t>(layer)); }
  // For other ranks; of any thread.
  static void Waiting(bool waits);

  PulseReading Read() const;

 private:
  struct alignas(64) Worker {
    std::atomic<int64_t> beats = 0;
  };
  static void Add(std::atomic<int64_t>& x) { x.store(x.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
  template <class T>
  static void Note(std::atomic<T> Pulse::*member, T value) {
    if (main_ == nullptr) return;
    (main_->*member).store(value, std::memory_order_relaxed);
    Add(main_->beats_);
  }

  std::atomic<int64_t> beats_ = 0, step_ = -1, blocks_ = 0;
  std::atomic<int32_t> layer_ = -1, waiting_ = 0, beside_ = 0, outside_ = 0;
  std::atomic<int32_t> others_waiting_ = 0;  // threads other than the main one
  std::atomic<Activity> activity_ = Activity::kStarting;
  std::array<Worker, 64> workers_;  // two of more threads than that share a line, and may lose a beat
  static inline constinit thread_local Pulse* main_ = nullptr;
  static inline constinit std::atomic<Pulse*> process_ = nullptr;
};

}  // namespace fathom
