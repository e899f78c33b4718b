// Whether numbers can be learned: a look through all of them before anything is changed.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "processor.hpp"

namespace dolmen {

DOLMEN_INLINE std::int32_t largest_bits(std::span<const float> values) noexcept {
  constexpr std::size_t kLanes = 32;  // Of four registers, so that one need not wait for another.
  const auto size_of = [](float value) DOLMEN_INLINED { return std::bit_cast<std::int32_t>(value) & 0x7FFFFFFF; };
  std::int32_t largest = 0;
  std::size_t i = 0;
  if (values.size() >= kLanes) {
    std::array<std::int32_t, kLanes> lanes{};
    for (; i + kLanes <= values.size(); i += kLanes) {
      for (std::size_t j = 0; j < kLanes; ++j) lanes[j] = std::max(lanes[j], size_of(values[i + j]));
    }
    for (const std::int32_t lane : lanes) largest = std::max(largest, lane);
  }
  for (; i < values.size(); ++i) largest = std::max(largest, size_of(values[i]));
  return largest;
}

// The largest size among `values`, NaN or infinity if one is so. Without their sign, floats are in the order of their
// bits, infinity and NaN above all: whole numbers are compared, several at once.
inline float largest_size(std::span<const float> values) noexcept {
  std::int32_t largest = 0;
  with_processor([&](auto) DOLMEN_INLINED { largest = largest_bits(values); });
  return std::bit_cast<float>(largest);
}

// The same of rows so wide, and for each of them whether anything in it is other than zero.
inline float largest_size(std::span<const float> rows, std::size_t dim, std::span<bool> is_other_than_zero) noexcept {
  std::int32_t largest = 0;
  with_processor([&](auto) DOLMEN_INLINED {
    for (std::size_t i = 0; i < is_other_than_zero.size(); ++i) {
      const std::int32_t of_row = largest_bits(rows.subspan(i * dim, dim));
      is_other_than_zero[i] = of_row != 0;
      largest = std::max(largest, of_row);
    }
  });
  return std::bit_cast<float>(largest);
}

}  // namespace dolmen
