// SimHash: vectors that point the same way fall into the same bucket; and how a query reads the sums of its buckets.
//
// Source: M. Charikar, STOC 2002; reading: Y. Cao et al., CIKM 2022 (SDIM), equation 7.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace dolmen {

inline constexpr std::size_t kBitsMax = 52;  // What a double counts exactly, which is how other devices make a number.

// `rounds` hashes of `bits` bits each, by `projections` (width, rounds * bits), row by row.
struct SimHash {
  std::span<const double> projections;
  std::size_t width, rounds, bits;
};

// The bucket of each of `vectors` (count, width) in each round: `out` (count, rounds). A product of 0 or more is a 1,
// in the place of its projection. Products are summed in the order of columns, in double: whatever the company in which
// a vector comes, and whatever the machine, it falls into the same bucket.
void hash_into_buckets(const SimHash& hash, std::span<const float> vectors, std::span<std::int64_t> out) noexcept;

struct BucketShape {
  std::size_t rounds, buckets, width;
};

// `out` (count, width): for each query the mean over rounds of its bucket's sum as a unit vector. `buckets` (count,
// rounds) are the queries', `owners` (count) say whose `sums` (people, rounds, buckets, width) each reads. A sum that
// is shorter than `length_min` is taken for that long, so that an empty one stays zero.
void read_buckets(const BucketShape& shape, std::span<const float> sums, std::span<const std::int64_t> owners,
                  std::span<const std::int64_t> buckets, float length_min, std::span<float> out) noexcept;

}  // namespace dolmen
