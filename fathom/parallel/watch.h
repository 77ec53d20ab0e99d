// The watch that every rank keeps over itself and the others, in a thread of its own, while the main thread works.
#pragma once

#include <functional>
#include <memory>
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

class Watch {
 public:
  enum class End {
    kAbort,  // the whole job, wherever its ranks are
    kLeave,  // this process: a rank beside it is gone, and the launcher ends the job for that
  };
  // Collective. pulse: of the main thread; both outlive this. patience: seconds without progress that are borne; 0: ranks are only told
  // from dead ones. end(how, message) is called from the watching thread when the job cannot go on, and does not return; the message is
  // empty if another rank says it.
  Watch(std::shared_ptr<Transport> transport, const Comm& world, const Pulse& pulse, double patience,
        std::function<void(End how, const std::string& message)> end);
  ~Watch();

 private:
  void Run();
  void Tick();
  void Listen();
  PulseReading Own() const;
  void CheckPeers(const std::vector<int>& gone);
  std::string NameOf(int rank) const;
  std::string Explain(const Alarm& alarm) const;

  std::shared_ptr<Transport> transport_;
  const Pulse& pulse_;
  std::vector<Peer> peers_;
  std::vector<std::pair<int, int>> beside_;  // ranks of this machine, and what becomes readable when they end
  double patience_;
  Vigil vigil_;
  std::function<void(End, const std::string&)> end_;
  int stop_;
  std::thread thread_;
};

}  // namespace fathom
