// What the native tests share, and those that `main` in test_table.cpp calls from other files.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "table.hpp"

#define REQUIRE(condition)                                                         \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

constexpr std::uint32_t kDim = 5;

inline std::vector<float> rows_of(const std::vector<std::int64_t>& fids, float plus = 0.0F) {
  std::vector<float> rows;
  for (const std::int64_t fid : fids) rows.insert(rows.end(), kDim, static_cast<float>(fid % 100'000) + plus);
  return rows;
}

// Columns that an instant of a table can be read into, `count` rows at a time.
struct RowBuffer {
  RowBuffer(std::size_t count, const dolmen::Table& table)
      : fids(count),
        last_seen_us(count),
        counts(count),
        vectors(count * table.dim()),
        states(count * table.state_dim()),
        epochs(count),
        row_numbers(count) {}
  dolmen::RowColumns<false> columns() { return {fids, vectors, states, last_seen_us, counts, epochs, row_numbers}; }

  std::vector<std::int64_t> fids, last_seen_us, counts;
  std::vector<float> vectors, states;
  std::vector<std::uint32_t> epochs, row_numbers;
};

struct Delta {
  std::vector<std::int64_t> fids;
  std::vector<float> vectors;
  std::vector<std::int64_t> removed;
  std::uint32_t last;
};

// What changed from `epoch` on, as the Python face reads it.
inline Delta delta_since(dolmen::Table& table, std::uint32_t epoch) {
  dolmen::Changes changes = table.changes_since(epoch);
  Delta delta{{}, {}, std::move(changes.removed), changes.last};
  RowBuffer buffer(512, table);
  for (std::uint32_t at = 0; at < changes.rows->row_end();) {
    const auto progress = changes.rows->read(at, changes.rows->row_end(), buffer.columns());
    for (std::size_t i = 0; i < progress.count; ++i) {
      if (buffer.epochs[i] < changes.first || buffer.epochs[i] > changes.last) continue;
      delta.fids.push_back(buffer.fids[i]);
      const float* vector = &buffer.vectors[i * table.dim()];
      delta.vectors.insert(delta.vectors.end(), vector, vector + table.dim());
    }
    at = progress.next;
  }
  return delta;
}

void test_without_memory();
void test_buckets_against_loops(std::uint64_t seed);
void test_upkeep_beside_readers(double seconds);
