// A stack for signal handlers.
#pragma once

namespace fathom {

// Gives the calling thread an alternate stack (sigaltstack) until it ends, if it has none. Handlers with SA_ONSTACK run there. Inside
// oneDNN's products the stack pointer lies in the heap (seen in a sixth of the samples of a training run): a signal's frame would overwrite
// what is there.
void UseSignalStack();

}  // namespace fathom
