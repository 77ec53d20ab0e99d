// What an errno means for the exit code.
#pragma once

#include "fathom/base/error.h"

namespace fathom {

// kResource for what the system ran out of (disk, memory, files) or where a disk fails; kInput for any other: a path is not what it should
// be.
ErrorCode CodeOfErrno(int error);

}  // namespace fathom
