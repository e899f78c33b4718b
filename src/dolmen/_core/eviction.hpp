// Which row leaves when a slot is full.
//
// Exact order would cost a list that every sight relinks. Instead, a victim is the worst of a sample of the slot's
// rows, as in Redis: with 16 in the sample it is among the worst fifth with a chance of 97 %. A slot that has no more
// rows than the sample loses its worst row exactly. Draws are a hash of how many draws were made before, so a run that
// is repeated loses the same rows.
//
// One writer calls all.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "hash.hpp"
#include "row_bits.hpp"
#include "row_store.hpp"

namespace dolmen {

enum class Eviction : std::uint8_t { kLru, kLfu, kScore };

struct CapacityOptions {
  std::int64_t row_count_max = 0;  // 0: no bound.
  Eviction eviction = Eviction::kLru;
  std::int64_t half_life_us = 0;  // Of kScore: a row's count weighs half for each of these that it was not seen.
};

// The rows that share a bound (a slot's, or all of the table): one bit for each row number of the table.
class SlotRows {
 public:
  explicit SlotRows(const CapacityOptions& options) : options_(options) {}

  const CapacityOptions& options() const noexcept { return options_; }
  std::size_t memory_size() const noexcept { return bits_.memory_size(); }

  void make_room(std::uint32_t row) { bits_.make_room(std::size_t{row} + 1); }
  void insert(std::uint32_t row) noexcept {
    bits_.set(row);
    count_ += 1;
  }
  void erase(std::uint32_t row) noexcept {
    bits_.clear(row);
    count_ -= 1;
  }
  bool is_over() const noexcept {
    return options_.row_count_max > 0 && count_ > static_cast<std::size_t>(options_.row_count_max);
  }

  static constexpr std::size_t kSampleCount = 16;
  struct Sample {
    std::array<std::uint32_t, kSampleCount> rows;
    std::size_t count;
    std::uint32_t row_end;  // Of the store, when it was drawn.
  };

  // Row numbers; all of them where there are no more than a sample has places. Their facts are on their way. There must
  // be one. `draw` is the number of draws so far, in the whole table.
  Sample sample(const RowStore& rows, std::uint64_t draw) const noexcept {
    Sample sample{{}, std::min(count_, kSampleCount), rows.row_end()};
    std::uint32_t at = 0;
    for (std::size_t i = 0; i < sample.count; ++i) {
      if (count_ > kSampleCount) {
        const std::uint64_t hash = mix64((draw * kSampleCount + i) * kGolden);
        at = static_cast<std::uint32_t>(((hash >> 32) * sample.row_end) >> 32);
      }
      sample.rows[i] = next(at);
      __builtin_prefetch(&rows.facts(sample.rows[i]));
      at = sample.rows[i] + 1;
    }
    return sample;
  }

  // Whether it would be drawn alike now that `gone` has left, and nothing else has changed.
  bool is_current(const Sample& sample, const RowStore& rows, std::uint32_t gone) const noexcept {
    return count_ > kSampleCount && rows.row_end() == sample.row_end &&
           std::find(sample.rows.begin(), sample.rows.end(), gone) == sample.rows.end();
  }

  // The row to evict.
  std::uint32_t victim(const RowStore& rows, const Sample& drawn) const noexcept {
    const auto& sample = drawn.rows;
    std::uint32_t worst = sample[0];
    Rank worst_rank = rank(rows.facts(worst));
    for (std::size_t i = 1; i < drawn.count; ++i) {
      const Rank other = rank(rows.facts(sample[i]));
      if (other >= worst_rank) continue;
      worst = sample[i];
      worst_rank = other;
    }
    return worst;
  }

 private:
  using Rank = std::tuple<double, std::int64_t, std::int64_t>;

  // The first row of the slot from `row` on, around the end.
  std::uint32_t next(std::uint32_t row) const noexcept {
    std::size_t word = row / 64;
    std::uint64_t bits = 0;
    if (word < bits_.word_count()) [[likely]] {
      bits = bits_.word(word) & (~std::uint64_t{0} << (row % 64));
    } else {
      bits =
          bits_.word(word %= bits_.word_count());  // Rows of others stand as high; so each of these is drawn as often.
    }
    while (bits == 0) {
      word = word + 1 < bits_.word_count() ? word + 1 : 0;
      bits = bits_.word(word);
    }
    return static_cast<std::uint32_t>(word * 64 + static_cast<std::size_t>(std::countr_zero(bits)));
  }

  Rank rank(const RowFacts& facts) const noexcept {
    const std::int64_t count = facts.count.load(std::memory_order_relaxed);
    const std::int64_t last_us = facts.last_seen_us.load(std::memory_order_relaxed);
    switch (options_.eviction) {
      case Eviction::kLfu:
        return {0.0, count, last_us};
      case Eviction::kScore:
        // count * 2^(-age / half-life) has the order of log2(count) + last sight / half-life, whenever it is asked.
        return {std::log2(static_cast<double>(count) + 1.0) +
                    static_cast<double>(last_us) / static_cast<double>(options_.half_life_us),
                last_us, count};
      default:
        return {0.0, last_us, count};
    }
  }

  CapacityOptions options_;
  RowBits bits_;
  std::size_t count_ = 0;
};

}  // namespace dolmen
