// The watch that every rank keeps over itself and the others, in a thread of its own, while the main thread works.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fathom/base/pulse.h"
#include "fathom/parallel/comm.h"
#include "fathom/parallel/vigil.h"

namespace fathom {

// A rank's process.
struct Peer {
  char host[64] = {};
  int64_t pid = 0;
  uint64_t machine = 0;  // MachineId
};
Peer ThisProcess();

class Watch {
 public:
  struct Times {             // seconds
    double patience;         // without progress that are borne; 0: ranks are only told from dead ones
    double tick = 0.5;       // between news
    double grace = 0.3;      // in which ranks that have something to say hear of each other, and one that has ended may have said why
    double last_word = 3.0;  // before a rank ends the job for which another was to do it
  };
  enum class End {
    kAbort,  // the whole job, wherever its ranks are
    kLeave,  // this process: a rank beside it is gone, and the launcher ends the job for that
  };
  // Collective. pulse: of this process; both outlive this. say(line), why the job cannot go on, is called on one rank alone; end(how) is
  // called behind it, on every rank that sees the job at its end, and does not return. Both are called from the watching thread.
  Watch(std::shared_ptr<Transport> transport, const Comm& world, const Pulse& pulse, Times times,
        std::function<void(const std::string& line)> say, std::function<void(End how)> end);
  ~Watch();
  // Of any thread: says why the job ends, unless another rank does or has done. False: another one.
  bool Say(const std::string& line);

 private:
  enum class Word : int32_t { kNone, kWanted, kSaid };  // about why the job ends
  struct News {
    PulseReading reading;
    Word word = Word::kNone;
  };
  void Run();
  void Tick();
  void Listen(int rank);
  void TellAll();
  void Tell(int rank);
  bool AnotherSpeaks();
  bool Stopped(double seconds) const;
  PulseReading Own() const;
  int64_t Effort() const;
  void CheckPeers(const std::vector<int>& gone);
  void Raise(const Alarm& alarm);
  std::string NameOf(int rank) const;
  std::string Explain(const Alarm& alarm) const;

  std::shared_ptr<Transport> transport_;
  const Pulse& pulse_;
  std::vector<Peer> peers_;
  std::vector<std::pair<int, int>> beside_;  // ranks of this machine, and what becomes readable when they end
  Times times_;
  std::function<void(const std::string&)> say_;
  std::function<void(End)> end_;
  int stop_;
  std::mutex news_;  // what is told and heard, and all below
  Vigil vigil_;
  Word word_ = Word::kNone;
  std::vector<Word> words_;  // by rank
  std::vector<bool> gone_;
  std::thread thread_;
};

}  // namespace fathom
