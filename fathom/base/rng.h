// Counter-based random numbers: value i of a stream is a pure function of (seed, stream, i), so any thread count, any
// order of evaluation and any resume give the same numbers. Philox 4x32-10 (Salmon et al., SC11).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace fathom {

// FNV-1a: names (of parameters, of purposes) to streams.
constexpr uint64_t HashName(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return h;
}

class CounterRng {
 public:
  CounterRng(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  // Four independent 32-bit words for this counter.
  std::array<uint32_t, 4> Block(uint64_t counter) const {
    std::array<uint32_t, 4> x = {Low(counter), High(counter), Low(stream_), High(stream_)};
    uint32_t k0 = Low(seed_), k1 = High(seed_);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * x[0], p1 = uint64_t{0xCD9E8D57u} * x[2];
      x = {High(p1) ^ x[1] ^ k0, Low(p1), High(p0) ^ x[3] ^ k1, Low(p0)};
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return x;
  }
  uint64_t Bits(uint64_t counter) const {
    const auto b = Block(counter);
    return (uint64_t{b[1]} << 32) | b[0];
  }
  // In [0, 1), 53 bits.
  double Uniform(uint64_t counter) const { return static_cast<double>(Bits(counter) >> 11) * 0x1.0p-53; }
  // In [0, n), n > 0; the bias of the multiply-shift is below n / 2^64.
  uint64_t Below(uint64_t counter, uint64_t n) const {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Bits(counter)) * n) >> 64);
  }
  // Standard normal, Box-Muller on one block.
  double Normal(uint64_t counter) const {
    const auto b = Block(counter);
    const double u1 = (static_cast<double>(b[0]) + 0.5) * 0x1.0p-32, u2 = static_cast<double>(b[1]) * 0x1.0p-32;
    return std::sqrt(-2.0 * std::log(u1)) * std::cos(2.0 * std::numbers::pi * u2);
  }

 private:
  static constexpr uint32_t Low(uint64_t x) { return static_cast<uint32_t>(x); }
  static constexpr uint32_t High(uint64_t x) { return static_cast<uint32_t>(x >> 32); }
  uint64_t seed_, stream_;
};

}  // namespace fathom
