// A safetensors file of any content: either an Error of the right kind, or tensors that lie inside the file and don't overlap.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "fathom/base/error.h"
#include "fathom/checkpoint/safetensors/safetensors.h"
#include "fuzz/memory_file.h"

namespace {

using namespace fathom;

void ReadAll(const SafetensorsFile& file) {
  uint64_t end = 0;
  unsigned sum = 0;
  for (const TensorEntry& entry : file.entries()) {
    Require(entry.begin >= end && entry.end <= file.file().bytes().size());
    end = entry.end;
    const Tensor tensor = file.Get(entry);
    Require(tensor.NumBytes() == entry.NumBytes() && file.Find(entry.name) == &entry);
    for (int64_t i = 0; i < tensor.NumBytes(); ++i) sum += static_cast<unsigned>(tensor.view().raw()[i]);
  }
  volatile unsigned sink = sum;
  (void)sink;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile memory(data, size);
  try {
    ReadAll(*SafetensorsFile::Open(memory.path()));
  } catch (const Error& e) {
    Require(e.code() == ErrorCode::kInput);
  }
  return 0;
}
