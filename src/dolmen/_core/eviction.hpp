// Which row leaves when a slot is full.
//
// Exact order would cost a list that every sight relinks. Instead, rows are drawn and the worst of them leave, as in
// Redis: one of 16, or up to 32 of six times as many. Each row of the slot is as likely as any other, wherever it lies
// among those of others. So the one is among the worst fifth with a chance of 97 %; all of the 32 are among the worst
// quarter with one of 99.8 %. A slot that has no more rows than are drawn loses its worst rows exactly. Draws are a
// hash of how many rows were evicted before, so a run that is repeated loses the same rows.
//
// One writer calls all.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <tuple>
#include <vector>

#include "hash.hpp"
#include "row_set.hpp"
#include "row_store.hpp"

namespace dolmen {

enum class Eviction : std::uint8_t { kLru, kLfu, kScore };

struct CapacityOptions {
  std::int64_t row_count_max = 0;  // 0: no bound.
  Eviction eviction = Eviction::kLru;
  std::int64_t half_life_us = 0;  // Of kScore: a row's count weighs half for each of these that it was not seen.
};

// The rows that share a bound: a slot's, or all of the table.
class SlotRows {
 public:
  explicit SlotRows(const CapacityOptions& options) : options_(options) {}

  const CapacityOptions& options() const noexcept { return options_; }
  std::size_t memory_size() const noexcept { return rows_.memory_size(); }

  void make_room(std::uint32_t row) { rows_.make_room(row); }
  void insert(std::uint32_t row) noexcept { rows_.insert(row); }
  void erase(std::uint32_t row) noexcept { rows_.erase(row); }
  bool is_over() const noexcept { return excess() > 0; }
  // How many rows there are too many.
  std::size_t excess() const noexcept {
    const auto count_max = static_cast<std::size_t>(options_.row_count_max);
    return count_max > 0 && rows_.size() > count_max ? rows_.size() - count_max : 0;
  }

  static constexpr std::size_t kWorstMax = 32;

  // Into `worst`: the row numbers of up to `count_max` rows to evict, worst first. Returns how many: at least one.
  // There must be a row, and `count_max` is from 1 to kWorstMax. `draw` is the number of evictions so far, in the whole
  // table.
  std::size_t find_worst(const RowStore& store, std::uint64_t draw, std::size_t count_max,
                         std::array<std::uint32_t, kWorstMax>& worst) const noexcept {
    std::array<std::uint32_t, kWorstMax * kDrawsEach> numbers;
    const std::size_t draw_count = std::min(rows_.size(), std::max(kDrawsMin, count_max * kDrawsEach));
    draw_rows(store.row_end(), draw, std::span(numbers).first(draw_count));
    for (std::size_t i = 0; i < draw_count; ++i) __builtin_prefetch(&store.facts(numbers[i]));
    std::array<Candidate, kWorstMax * kDrawsEach> drawn;
    for (std::size_t i = 0; i < draw_count; ++i) drawn[i] = {rank(store.facts(numbers[i])), numbers[i]};
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

  // Rows of the slot, each as likely as any other; if there are no more, all. Where the slot is the only one, most
  // numbers are a row of its own, and asking is faster than counting up to it; in place of another's, it draws again
  // among its own.
  void draw_rows(std::uint32_t row_end, std::uint64_t draw, std::span<std::uint32_t> rows) const noexcept {
    if (rows.size() == rows_.size()) {
      std::iota(rows.begin(), rows.end(), 0U);
      return rows_.find_nth(rows);
    }
    std::size_t count = 0, again = rows.size();  // Drawn, from the front; and to be drawn again, from the back.
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::uint64_t hash = mix64((draw * kDrawsMin + i) * kGolden);
      const auto row = static_cast<std::uint32_t>((hash >> 32) * row_end >> 32);
      if (rows_.contains(row)) {
        rows[count++] = row;
      } else {
        rows[--again] = static_cast<std::uint32_t>((hash & 0xFFFFFFFF) * rows_.size() >> 32);
      }
    }
    rows_.find_nth(rows.subspan(again));
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
  RowSet rows_;
};

}  // namespace dolmen
