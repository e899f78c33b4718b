// How a vector is stored: as float32, or narrower in tables that serve and never learn.
//
// A finite value stays finite: beyond the largest that a precision has, it becomes that one.
// What is decoded encodes to the same bytes again, so a row that goes through a file, a delta or a copy (which carry
// float32) stays as it is. Sizes are whole words of four bytes, since that is what readers and writers share.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "processor.hpp"
#include "shared_memory.hpp"

namespace dolmen {

enum class Precision : std::uint8_t { kFloat32, kFloat16, kBfloat16, kInt8 };

constexpr std::size_t whole_words(std::size_t size) noexcept {
  return (size + sizeof(std::uint32_t) - 1) / sizeof(std::uint32_t) * sizeof(std::uint32_t);
}

struct Float32 {
  static constexpr std::size_t size(std::size_t dim) noexcept { return dim * sizeof(float); }
  template <typename Processor, typename Dim>
  DOLMEN_INLINE static void read(Processor, float* to, const std::byte* from, Dim dim) noexcept {
    copy_from_shared(to, reinterpret_cast<const float*>(from), dim);
  }
};

// IEEE 754 binary16, rounded to the nearest, ties to even, up to 65,504.
struct Float16 {
  static constexpr std::size_t size(std::size_t dim) noexcept { return whole_words(dim * sizeof(std::uint16_t)); }
  static void encode(std::byte* to, const float* from, std::size_t dim) noexcept {
    auto* halves = reinterpret_cast<std::uint16_t*>(to);
    for (std::size_t i = 0; i < dim; ++i) halves[i] = half_of(from[i]);
  }
  template <typename Processor, typename Dim>
  DOLMEN_INLINE static void read(Processor processor, float* to, const std::byte* from, Dim dim) noexcept {
    decode(processor, to, reinterpret_cast<const std::uint16_t*>(steady(from, size(dim))), dim);
  }

 private:
  static std::uint16_t half_of(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = bits >> 16 & 0x8000U;
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    if (magnitude > 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7E00U);   // No number.
    if (magnitude == 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7C00U);  // Infinity.
    if (magnitude >= 0x477FE000U) return static_cast<std::uint16_t>(sign | 0x7BFFU);  // 65,504 or more.
    if (magnitude < 0x38800000U) {
      // Below the normal ones: to a multiple of 2^-24. Adding 0.5 puts the last bit of the sum there.
      const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
      return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U));
    }
    const std::uint32_t odd = magnitude >> 13 & 1;
    return static_cast<std::uint16_t>(sign | ((magnitude + 0xFFFU + odd - 0x38000000U) >> 13));
  }
  static float float_of(std::uint16_t half) noexcept {
    const std::uint32_t magnitude = half & 0x7FFFU;
    // Scaled by 2^112, the exponent's new bias takes care of numbers below the normal ones too.
    const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112F;
    const std::uint32_t bits =
        magnitude >= 0x7C00U ? magnitude << 13 | 0x7F800000U : std::bit_cast<std::uint32_t>(scaled);
    return std::bit_cast<float>(bits | static_cast<std::uint32_t>(half & 0x8000U) << 16);
  }
  template <typename Dim>
  DOLMEN_INLINE static void decode(Portable, float* to, const std::uint16_t* from, Dim dim) noexcept {
    for (std::size_t i = 0; i < dim; ++i) to[i] = float_of(from[i]);
  }
#ifdef DOLMEN_HAS_AVX2
  template <typename Dim>
  DOLMEN_AVX2 static void decode(Avx2, float* to, const std::uint16_t* from, Dim dim) noexcept {
    constexpr std::size_t kPiece = 8;
    std::size_t i = 0;
    for (; i + kPiece <= dim; i += kPiece) {
      _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    }
    for (; i < dim; ++i) to[i] = float_of(from[i]);
  }
#endif
};

// The upper half of a float32, rounded to the nearest, ties to even, up to 2^128 - 2^120.
struct Bfloat16 {
  static constexpr std::size_t size(std::size_t dim) noexcept { return Float16::size(dim); }
  static void encode(std::byte* to, const float* from, std::size_t dim) noexcept {
    auto* halves = reinterpret_cast<std::uint16_t*>(to);
    for (std::size_t i = 0; i < dim; ++i) halves[i] = half_of(from[i]);
  }
  template <typename Processor, typename Dim>
  DOLMEN_INLINE static void read(Processor, float* to, const std::byte* from, Dim dim) noexcept {
    const auto* halves = reinterpret_cast<const std::uint16_t*>(steady(from, size(dim)));
    for (std::size_t i = 0; i < dim; ++i) to[i] = std::bit_cast<float>(std::uint32_t{halves[i]} << 16);
  }

 private:
  static std::uint16_t half_of(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40U);
    const std::uint32_t rounded = (bits + 0x7FFFU + (bits >> 16 & 1)) >> 16;
    const bool is_beyond = (rounded & 0x7FFFU) == 0x7F80U && std::isfinite(value);
    return static_cast<std::uint16_t>(is_beyond ? rounded - 1 : rounded);
  }
};

// A scale for the row, then an integer in [-127, 127] for each value. Zeros stay zeros.
//
// The scale is the largest size in the row / 127, cut to 16 bits of significand: then each integer times the scale is
// exact in float32, and so is its way back. A row with a value that is no finite number reads as NaN in all columns.
struct Int8 {
  static constexpr std::size_t size(std::size_t dim) noexcept { return sizeof(float) + whole_words(dim); }
  static void encode(std::byte* to, const float* from, std::size_t dim) noexcept {
    float largest = 0.0F;
    bool is_finite = true;
    for (std::size_t i = 0; i < dim; ++i) {
      largest = std::max(largest, std::fabs(from[i]));
      is_finite = is_finite && std::isfinite(from[i]);
    }
    float scale = std::bit_cast<float>(std::bit_cast<std::uint32_t>(largest / kLargest) & 0xFFFFFF00U);
    if (scale < std::numeric_limits<float>::min()) scale = 0.0F;  // All of the row is below 2e-36.
    const bool is_zero = scale == 0.0F || !is_finite;
    if (!is_finite) scale = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(to, &scale, sizeof(scale));
    auto* integers = reinterpret_cast<std::int8_t*>(to + sizeof(scale));
    for (std::size_t i = 0; i < dim; ++i) {
      // The sum's last bit is worth 1, so adding and taking away again rounds, ties to even.
      integers[i] = is_zero ? std::int8_t{0} : static_cast<std::int8_t>(from[i] / scale + kRound - kRound);
    }
  }
  template <typename Processor, typename Dim>
  DOLMEN_INLINE static void read(Processor, float* to, const std::byte* from, Dim dim) noexcept {
    const std::byte* row = steady(from, size(dim));
    float scale = 0.0F;
    std::memcpy(&scale, row, sizeof(scale));
    const auto* integers = reinterpret_cast<const std::int8_t*>(row + sizeof(scale));
    for (std::size_t i = 0; i < dim; ++i) to[i] = static_cast<float>(integers[i]) * scale;
  }

 private:
  static constexpr float kLargest = 127.0F;
  static constexpr float kRound = 0x1.8p23F;
};

// Calls `work(Float32())` and so on. `work` must be DOLMEN_INLINED.
template <typename Work>
DOLMEN_INLINE auto with_precision(Precision precision, const Work& work) {
  switch (precision) {
    case Precision::kFloat16:
      return work(Float16());
    case Precision::kBfloat16:
      return work(Bfloat16());
    case Precision::kInt8:
      return work(Int8());
    default:
      return work(Float32());
  }
}

}  // namespace dolmen
