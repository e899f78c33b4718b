#include "simhash.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "processor.hpp"

namespace dolmen {
namespace {

constexpr std::size_t kBlock = 16;  // Projections at once: their sums stay in registers.
constexpr std::size_t kLanes = 8;   // Partial sums of squares, so that they need not wait for one another.

// The products of one vector with `count` projections from `first` on. `count` is a constant but for the last of them.
DOLMEN_INLINE void project(const SimHash& hash, const float* vector, std::size_t first, std::size_t count,
                           std::array<double, kBlock>& products) noexcept {
  const std::size_t stride = hash.rounds * hash.bits;
  const double* row = hash.projections.data() + first;
  std::array<double, kBlock> sums{};
  for (std::size_t column = 0; column < hash.width; ++column, row += stride) {
    const double value = vector[column];
    for (std::size_t place = 0; place < count; ++place) sums[place] += value * row[place];
  }
  products = sums;
}

DOLMEN_INLINE float square_of(const float* row, std::size_t width) noexcept {
  std::array<float, kLanes> lanes{};
  std::size_t column = 0;
  for (; column + kLanes <= width; column += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += row[column + lane] * row[column + lane];
  }
  for (; column < width; ++column) lanes[column % kLanes] += row[column] * row[column];
  float square = 0.0F;
  for (const float lane : lanes) square += lane;
  return square;
}

}  // namespace

void hash_into_buckets(const SimHash& hash, std::span<const float> vectors, std::span<std::int64_t> out) noexcept {
  std::fill(out.begin(), out.end(), 0);
  if (hash.bits == 0) return;
  const std::size_t all = hash.rounds * hash.bits;
  with_processor([=](auto) DOLMEN_INLINED {
    const float* vector = vectors.data();
    for (std::int64_t* buckets = out.data(); buckets != out.data() + out.size(); buckets += hash.rounds) {
      std::size_t round = 0, bit = 0;
      for (std::size_t first = 0; first < all; first += kBlock) {
        std::array<double, kBlock> products;
        const std::size_t count = std::min(kBlock, all - first);
        if (count == kBlock) {
          project(hash, vector, first, kBlock, products);
        } else {
          project(hash, vector, first, count, products);
        }
        for (std::size_t place = 0; place < count; ++place) {
          buckets[round] |= static_cast<std::int64_t>(products[place] >= 0.0) << bit;
          if (++bit == hash.bits) {
            bit = 0;
            ++round;
          }
        }
      }
      vector += hash.width;
    }
  });
}

void read_buckets(const BucketShape& shape, std::span<const float> sums, std::span<const std::int64_t> owners,
                  std::span<const std::int64_t> buckets, float length_min, std::span<float> out) noexcept {
  const float square_min = length_min * length_min, share = 1.0F / static_cast<float>(shape.rounds);
  with_processor([=](auto) DOLMEN_INLINED {
    std::fill(out.begin(), out.end(), 0.0F);
    const std::int64_t* bucket = buckets.data();
    float* mean = out.data();
    for (const std::int64_t owner : owners) {
      std::size_t first = static_cast<std::size_t>(owner) * shape.rounds * shape.buckets;
      for (std::size_t round = 0; round < shape.rounds; ++round, ++bucket, first += shape.buckets) {
        const float* row = sums.data() + (first + static_cast<std::size_t>(*bucket)) * shape.width;
        const float scale = share / std::sqrt(std::max(square_of(row, shape.width), square_min));
        for (std::size_t column = 0; column < shape.width; ++column) mean[column] += scale * row[column];
      }
      mean += shape.width;
    }
  });
}

}  // namespace dolmen
