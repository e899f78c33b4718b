// Hashing: the mixer behind index places and start values, and XXH64 for strings and checksums.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>

#include "processor.hpp"

namespace dolmen {

// A FID is: sign 0 | 10 bits of slot number | 53 bits of value.
inline constexpr unsigned kFidValueBits = 53;
inline constexpr std::uint32_t kSlotCount = 1024;
inline constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15U;  // 2^64 / golden ratio.

inline std::uint32_t slot_of(std::int64_t fid) noexcept {
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(fid) >> kFidValueBits);
}

// SplitMix64's finaliser: a bijection in which each input bit moves about half of the output bits.
inline std::uint64_t mix64(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

// XXH64, written from its specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
std::uint64_t xxh64(std::span<const std::uint8_t> data, std::uint64_t seed) noexcept;

// A fraction in [-1, 1) in steps of 2^-23, exact in float32, from a hash of (seed, FID, column).
class StartValues {
 public:
  StartValues(std::uint64_t seed, float range) noexcept : seed_(mix64(seed + kGolden)), range_(range) {}

  void fill(std::int64_t fid, std::span<float> row) const noexcept {
    const std::uint64_t state = mix64(static_cast<std::uint64_t>(fid) ^ seed_);
    const float range = range_;
    with_processor([=](auto) DOLMEN_INLINED {
      for (std::size_t i = 0; i < row.size(); ++i) {
        const auto bits = static_cast<std::int32_t>(mix64(state + (i + 1) * kGolden) >> 40);  // 24 of them.
        row[i] = (static_cast<float>(bits) * 0x1p-23F - 1.0F) * range;
      }
    });
  }

 private:
  std::uint64_t seed_;
  float range_;
};

}  // namespace dolmen
