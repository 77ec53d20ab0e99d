// The ranks of a job: started, told apart, ended together.
#pragma once

#include <memory>
#include <string>

#include "fathom/parallel/comm.h"

namespace fathom {

class Ranks {
 public:
  // This process alone until Join.
  Ranks() = default;
  // Meets the other ranks, once, if there are some; all but the first stop logging. Throws Error(kUsage) as OpenMpi.
  void Join(bool several = true);

  const Comm& world() const { return world_; }
  bool is_first() const { return world_.rank() == 0; }
  // A failure of this rank, which its message explains on stderr: once for all if all ranks fail, and then they end like this one.
  // Otherwise it ends the others, and this one, with the code.
  void Fail(int code, const std::string& message);

 private:
  std::shared_ptr<Transport> transport_;
  Comm world_;
};

}  // namespace fathom
