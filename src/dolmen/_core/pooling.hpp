// Pooling for reads that nobody learns from: many rows into one for each bag, in one call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace dolmen {

// `rows` are the bags' rows, one after the other, `lengths[i]` of them in bag i. `out` gets their sum, in order, or
// that divided by their count; a bag without rows gives zeros.
inline void pool_rows(std::span<const float> rows, std::span<const std::int64_t> lengths, std::size_t dim, bool is_mean,
                      std::span<float> out) noexcept {
  const float* row = rows.data();
  float* pooled = out.data();
  for (const std::int64_t length : lengths) {
    std::fill_n(pooled, dim, 0.0F);
    for (std::int64_t place = 0; place < length; ++place, row += dim) {
      for (std::size_t column = 0; column < dim; ++column) pooled[column] += row[column];
    }
    if (is_mean && length > 1) {
      const auto count = static_cast<float>(length);
      for (std::size_t column = 0; column < dim; ++column) pooled[column] /= count;
    }
    pooled += dim;
  }
}

}  // namespace dolmen
