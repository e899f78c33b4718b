// Hashing and reading against loops that say the same in the plainest way, at widths that fill no register.
#include <cmath>
#include <random>

#include "native_tests.hpp"
#include "simhash.hpp"

void test_buckets_against_loops(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> draw;
  const auto up_to = [&](std::size_t most) { return static_cast<std::size_t>(random() % (most + 1)); };
  const std::size_t width = 1 + up_to(40), rounds = 1 + up_to(20), bits = up_to(5), count = up_to(30), people = 3;
  const std::size_t bucket_count = std::size_t{1} << bits;
  std::vector<double> projections(width * rounds * bits);
  std::vector<float> vectors(count * width), sums(people * rounds * bucket_count * width);
  for (double& one : projections) one = draw(random);
  for (float& one : vectors) one = static_cast<float>(draw(random));
  for (float& one : sums) one = random() % 3 == 0 ? 0.0F : static_cast<float>(draw(random));
  std::vector<std::int64_t> buckets(count * rounds, -1), owners(count);
  for (std::int64_t& owner : owners) owner = static_cast<std::int64_t>(up_to(people - 1));

  dolmen::hash_into_buckets({projections, width, rounds, bits}, vectors, buckets);
  for (std::size_t at = 0; at < count * rounds; ++at) {
    std::int64_t expected = 0;
    for (std::size_t bit = 0; bit < bits; ++bit) {
      double product = 0.0;
      for (std::size_t column = 0; column < width; ++column) {
        product += static_cast<double>(vectors[at / rounds * width + column]) *
                   projections[(column * rounds + at % rounds) * bits + bit];
      }
      if (product >= 0.0) expected |= std::int64_t{1} << bit;
    }
    REQUIRE(buckets[at] == expected);
  }

  std::vector<float> interests(count * width, NAN);
  dolmen::read_buckets({rounds, bucket_count, width}, sums, owners, buckets, 1e-6F, interests);
  for (std::size_t query = 0; query < count; ++query) {
    std::vector<double> expected(width, 0.0);
    for (std::size_t round = 0; round < rounds; ++round) {
      const auto owner = static_cast<std::size_t>(owners[query]);
      const auto bucket = static_cast<std::size_t>(buckets[query * rounds + round]);
      const float* row = &sums[((owner * rounds + round) * bucket_count + bucket) * width];
      double square = 0.0;
      for (std::size_t column = 0; column < width; ++column) square += double{row[column]} * double{row[column]};
      const double length = std::max(std::sqrt(square), 1e-6) * static_cast<double>(rounds);
      for (std::size_t column = 0; column < width; ++column) expected[column] += double{row[column]} / length;
    }
    for (std::size_t column = 0; column < width; ++column) {
      REQUIRE(std::fabs(double{interests[query * width + column]} - expected[column]) < 1e-5);
    }
  }
}
