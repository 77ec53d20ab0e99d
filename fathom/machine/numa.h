// On which memory node pages lie, where a machine has several.
#pragma once

#include <string>

namespace fathom {

// From here on, of this thread and of those that it starts: "interleave" spreads pages over all nodes, those of files too that are not in
// memory yet (which is what mapped weights need that every node reads); "local" puts them where they are first touched, whatever the
// process was started with; "off" leaves the process as it was started. By libnuma, which is opened when it is asked for. Throws
// Error(kResource) if it is not there, or the system has no such thing.
void SetNumaPolicy(const std::string& policy, const std::string& library = "libnuma.so.1");

}  // namespace fathom
