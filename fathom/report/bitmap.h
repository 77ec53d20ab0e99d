// Small images inside a page.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace fathom {

// pixels [height][width], 0 to 255 from dark blue over green to yellow, as a data: URL of an uncompressed bitmap.
std::string BitmapUrl(std::span<const uint8_t> pixels, int width, int height);

}  // namespace fathom
