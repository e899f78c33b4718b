// Which rows changed in one epoch: their numbers while they are few, one bit a row once that takes less. Noting a row
// that has changed already must not fail: where there is no memory for it, any row may be one of them from then on, and
// the row's own epoch tells.
//
// One writer calls all.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include "row_bits.hpp"

namespace dolmen {

class ChangedRows {
 public:
  // `row_max` is above any row number given out so far. A row may be added again.
  void add(std::uint32_t row, std::size_t row_max) noexcept {
    if (is_any_) return;
    try {
      if (bits_.is_empty()) {
        numbers_.push_back(row);
        if (numbers_.size() * kRowsPerNumber > row_max) spread(row_max);
      } else {
        bits_.make_room(std::size_t{row} + 1);
        bits_.set(row);
      }
    } catch (const std::bad_alloc&) {
      is_any_ = true;
      numbers_ = {};
      bits_ = {};
    }
  }

  // Sets the bits of these rows in `bits`, and maybe of others; what it has no room for is left out.
  void mark(std::vector<std::uint64_t>& bits) const noexcept {
    if (is_any_) std::ranges::fill(bits, ~std::uint64_t{0});
    for (const std::uint32_t row : numbers_) {
      if (row / 64 < bits.size()) bits[row / 64] |= std::uint64_t{1} << (row % 64);
    }
    for (std::size_t i = 0; i < std::min(bits.size(), bits_.word_count()); ++i) bits[i] |= bits_.word(i);
  }

  std::size_t memory_size() const noexcept { return numbers_.capacity() * sizeof(std::uint32_t) + bits_.memory_size(); }

 private:
  static constexpr std::size_t kRowsPerNumber = 32;  // As many bits as a number has.

  void spread(std::size_t row_max) {
    bits_.make_room(row_max);
    for (const std::uint32_t row : numbers_) bits_.set(row);
    numbers_ = {};
  }

  bool is_any_ = false;
  std::vector<std::uint32_t> numbers_;  // Empty once there are bits.
  RowBits bits_;
};

}  // namespace dolmen
