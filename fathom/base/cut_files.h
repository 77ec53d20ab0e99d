// Files that shrink while they are mapped.
#pragma once

namespace fathom {

// From now on, reading a mapped file (MappedFile) beyond an end that has moved, or where the disk fails, ends the process with one line
// that names the file, and the exit code of ErrorCode::kInput; without this the system ends it by SIGBUS. For programs, once, after
// SetThreads: the calling thread and OpenMP's get a signal stack.
void ReportCutFiles();

}  // namespace fathom
