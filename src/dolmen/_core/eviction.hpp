// Which row leaves when a slot is full.
//
// Exact order would cost a list that every sight relinks. Instead, rows are drawn and the worst of them leave, as in
// Redis: one of 16, or up to 32 of six times as many. The one is among the worst fifth with a chance of 97 %; all of
// the 32 are among the worst quarter with one of 99.8 %. A slot that has no more rows than are drawn loses its worst
// rows exactly. Draws are a hash of how many rows were evicted before, so a run that is repeated loses the same rows.
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
  bool is_over() const noexcept { return excess() > 0; }
  // How many rows there are too many.
  std::size_t excess() const noexcept {
    const auto count_max = static_cast<std::size_t>(options_.row_count_max);
    return count_max > 0 && count_ > count_max ? count_ - count_max : 0;
  }

  static constexpr std::size_t kWorstMax = 32;

  // Into `worst`: the row numbers of up to `count_max` rows to evict, worst first. Returns how many: at least one.
  // There must be a row, and `count_max` is from 1 to kWorstMax. `draw` is the number of evictions so far, in the whole
  // table.
  std::size_t find_worst(const RowStore& rows, std::uint64_t draw, std::size_t count_max,
                         std::array<std::uint32_t, kWorstMax>& worst) const noexcept {
    std::array<Candidate, kWorstMax * kDrawsEach> drawn;
    const std::size_t draw_count = std::min(count_, std::max(kDrawsMin, count_max * kDrawsEach));
    std::uint32_t at = 0;
    for (std::size_t i = 0; i < draw_count; ++i) {
      if (count_ > draw_count) {
        const std::uint64_t hash = mix64((draw * kDrawsMin + i) * kGolden);
        at = static_cast<std::uint32_t>(((hash >> 32) * rows.row_end()) >> 32);
      }
      drawn[i].row = next(at);
      __builtin_prefetch(&rows.facts(drawn[i].row));
      at = drawn[i].row + 1;
    }
    for (std::size_t i = 0; i < draw_count; ++i) drawn[i].rank = rank(rows.facts(drawn[i].row));
    const auto end = drawn.begin() + static_cast<std::ptrdiff_t>(draw_count);
    const auto worst_end = drawn.begin() + static_cast<std::ptrdiff_t>(std::min(count_max, draw_count));
    std::partial_sort(drawn.begin(), worst_end, end);
    std::size_t count = 0;
    for (auto each = drawn.begin(); each != worst_end; ++each) {
      if (count == 0 || worst[count - 1] != each->row) worst[count++] = each->row;  // It may have been drawn twice.
    }
    return count;
  }

 private:
  static constexpr std::size_t kDrawsMin = 16;
  static constexpr std::size_t kDrawsEach = 6;  // For each that is asked for.
  using Rank = std::tuple<double, std::int64_t, std::int64_t>;
  struct Candidate {
    Rank rank;
    std::uint32_t row;
    bool operator<(const Candidate& other) const noexcept {
      return std::tie(rank, row) < std::tie(other.rank, other.row);
    }
  };

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
