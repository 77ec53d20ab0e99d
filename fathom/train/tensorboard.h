// Scalars as TensorBoard reads them: event files of TFRecords, each a protobuf message with checksums.
#pragma once

#include <filesystem>
#include <memory>

#include "fathom/train/metrics.h"

namespace fathom {

// Creates events.out.tfevents.<time>.<process> in dir, which is made if it's absent; a resumed run adds a file, and TensorBoard shows them
// as one. What earlier files hold of the steps from first_step on, which will run again, is removed from them, and a TensorBoard that has
// read it forgets it. Every write reaches the file at once. Throws Error(kResource).
std::unique_ptr<ScalarSink> OpenTensorBoardSink(const std::filesystem::path& dir, int64_t first_step);

}  // namespace fathom
