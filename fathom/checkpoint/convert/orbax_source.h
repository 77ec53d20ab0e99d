// The tensors of an Orbax checkpoint under the hub's names.
#pragma once

#include <filesystem>
#include <memory>

#include "fathom/checkpoint/convert/convert_source.h"

namespace fathom {

// items: as FindOrbaxItems gives it. Throws as OpenConvertSource.
std::unique_ptr<ConvertSource> OpenOrbaxSource(const std::filesystem::path& items, const SourceOptions& options);

}  // namespace fathom
