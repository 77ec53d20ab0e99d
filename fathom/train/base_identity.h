// What tells the weights that adapters are trained beside from others of the same shape.
#pragma once

#include <string>

#include "fathom/checkpoint/hub/checkpoint.h"

namespace fathom {

// A hash of the model's config, of every tensor's name, dtype and shape, and of some bytes of up to 256 of them. Where the folder lies and
// how its tensors are spread over files makes no difference.
std::string BaseIdentity(const Checkpoint& base);

}  // namespace fathom
