// The ranks of a job: started, told apart, ended together.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "fathom/parallel/comm.h"
#include "fathom/parallel/watch.h"

namespace fathom {

class Ranks {
 public:
  // This process alone until Join.
  Ranks() = default;
  ~Ranks();  // waits for the others
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  // Meets the other ranks, once, if there are some; all but the first stop logging. Throws Error(kUsage) as OpenMpi.
  void Join(bool several = true);
  // Once joined, this rank and the others are watched: the job ends with one line when one of them is gone or, unless patience is 0, has
  // made no progress for so many seconds. Collective.
  void Watch(double patience);

  const Comm& world() const { return world_; }
  bool is_first() const { return world_.rank() == 0; }
  // A failure of this rank, which its message explains on stderr: once for all if all ranks fail, and then they end like this one.
  // Otherwise it ends the others, and this one, with the code.
  void Fail(int code, const std::string& message);

 private:
  // All ranks have met at their end: is this the first of those that failed? Collective.
  bool EndTogether(bool failed);

  std::shared_ptr<Transport> transport_;
  Comm world_;
  Pulse pulse_;  // of the thread that joins
  std::optional<Pulse::Scope> noted_;
  std::unique_ptr<fathom::Watch> watch_;
  bool ended_ = false;
};

}  // namespace fathom
