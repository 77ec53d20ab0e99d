#pragma once

namespace fathom {

// libgomp's threads wait for each other by spinning for milliseconds; where another program wants the core, that is time in which the
// thread they wait for cannot run. libgomp reads its environment before main, so this starts the process over with fewer spins, unless
// GOMP_SPINCOUNT or OMP_WAIT_POLICY is set (docs/environment.md). If it cannot, it goes on as it is. argv: main's.
void StartOverWithShortSpins(char** argv);

}  // namespace fathom
