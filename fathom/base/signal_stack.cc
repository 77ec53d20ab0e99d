#include "fathom/base/signal_stack.h"

#include <csignal>
#include <cstddef>
#include <memory>

namespace fathom {
namespace {

constexpr size_t kBytes = 1 << 16;  // the frame of a signal holds all vector registers

class SignalStack {
 public:
  SignalStack() {
    stack_t old;
    if (sigaltstack(nullptr, &old) != 0 || (old.ss_flags & SS_DISABLE) == 0) return;  // a sanitizer may have set one
    memory_ = std::make_unique<std::byte[]>(kBytes);
    const stack_t stack{.ss_sp = memory_.get(), .ss_flags = 0, .ss_size = kBytes};
    sigaltstack(&stack, nullptr);
  }
  ~SignalStack() {
    if (memory_ == nullptr) return;
    const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
    sigaltstack(&none, nullptr);
  }
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;

 private:
  std::unique_ptr<std::byte[]> memory_;
};

}  // namespace

void UseSignalStack() { static thread_local const SignalStack stack; }

}  // namespace fathom
