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

// The largest size among `values`, NaN or infinity if one is so. Without their sign, floats are in the order of their
// bits, infinity and NaN above all: whole numbers are compared, several at once.
inline float largest_size(std::span<const float> values) noexcept {
  constexpr std::size_t kLanes = 32;  // Of four registers, so that one need not wait for another.
  std::int32_t largest = 0;
  with_processor([&](auto) DOLMEN_INLINED {
    const auto size_of = [](float value) DOLMEN_INLINED { return std::bit_cast<std::int32_t>(value) & 0x7FFFFFFF; };
    std::array<std::int32_t, kLanes> lanes{};
    std::size_t i = 0;
    for (; i + kLanes <= values.size(); i += kLanes) {
      for (std::size_t j = 0; j < kLanes; ++j) lanes[j] = std::max(lanes[j], size_of(values[i + j]));
    }
    for (; i < values.size(); ++i) lanes[0] = std::max(lanes[0], size_of(values[i]));
    largest = *std::max_element(lanes.begin(), lanes.end());
  });
  return std::bit_cast<float>(largest);
}

}  // namespace dolmen
