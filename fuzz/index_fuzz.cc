// model.safetensors.index.json of any content: an Error, or plain file names.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/checkpoint/safetensors/tensor_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    for (const auto& [tensor, file] : fathom::ParseIndex({reinterpret_cast<const char*>(data), size}, "index")) {
      if (file.empty() || file == ".." || file.find('/') != file.npos) std::abort();
    }
  } catch (const fathom::Error& e) {
    if (e.code() != fathom::ErrorCode::kInput) std::abort();
  }
  return 0;
}
