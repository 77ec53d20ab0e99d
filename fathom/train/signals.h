// Ctrl-C and SIGTERM ask a run to save and stop; a second one kills it.
#pragma once

#include <cstddef>
#include <vector>

namespace fathom {

// The handler has a stack of its own, in the calling thread, which gets the process's signals while it does not block them: oneDNN's
// generated code can hold the stack pointer elsewhere, and a signal's frame on the ordinary stack then overwrites what lies there.
class StopSignals {
 public:
  StopSignals();   // takes over SIGINT and SIGTERM
  ~StopSignals();  // gives them back
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  // The signal that came, 0: none. The exit code of a run that it stopped is 128 plus this.
  int received() const;

 private:
  std::vector<std::byte> stack_;
};

}  // namespace fathom
