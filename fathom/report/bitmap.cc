#include "fathom/report/bitmap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace fathom {
namespace {

void Put(std::string& out, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i) & 255));
}

// Even steps of brightness, so that the order is seen in grey print and by every eye.
std::array<uint8_t, 3> Color(int level) {
  struct Stop {
    double r, g, b;
  };
  constexpr std::array<Stop, 5> kStops = {{{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}}};
  const double at = level / 255.0 * (kStops.size() - 1);
  const auto i = std::min<size_t>(kStops.size() - 2, static_cast<size_t>(at));
  const double part = at - static_cast<double>(i);
  const auto mix = [&](double a, double b) { return static_cast<uint8_t>(std::lround(a + (b - a) * part)); };
  return {mix(kStops[i].r, kStops[i + 1].r), mix(kStops[i].g, kStops[i + 1].g), mix(kStops[i].b, kStops[i + 1].b)};
}

std::string Base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j) group = group << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) out.push_back(i + j <= bytes.size() ? kDigits[group >> (18 - 6 * j) & 63] : '=');
  }
  return out;
}

}  // namespace

std::string BitmapUrl(std::span<const uint8_t> pixels, int width, int height) {
  const uint32_t row = (static_cast<uint32_t>(width) + 3) / 4 * 4, start = 14 + 40 + 256 * 4, size = row * static_cast<uint32_t>(height);
  std::string file = "BM";
  Put(file, start + size, 4);
  Put(file, 0, 4);
  Put(file, start, 4);
  Put(file, 40, 4);
  Put(file, static_cast<uint32_t>(width), 4);
  Put(file, static_cast<uint32_t>(height), 4);  // rows from the bottom up
  Put(file, 1, 2);
  Put(file, 8, 2);
  Put(file, 0, 4);
  Put(file, size, 4);
  for (int i = 0; i < 4; ++i) Put(file, i == 2 ? 256 : 0, 4);
  for (int level = 0; level < 256; ++level) {
    const auto [r, g, b] = Color(level);
    Put(file, static_cast<uint32_t>(b | g << 8 | r << 16), 4);
  }
  for (int y = height - 1; y >= 0; --y) {
    for (uint32_t x = 0; x < row; ++x) {
      const bool inside = x < static_cast<uint32_t>(width);
      file.push_back(inside ? static_cast<char>(pixels[static_cast<size_t>(y) * static_cast<size_t>(width) + x]) : '\0');
    }
  }
  return "data:image/bmp;base64," + Base64(file);
}

}  // namespace fathom
