// Which rows changed in one epoch: their numbers while they are few, one bit a row once that takes less.
//
// One writer calls all.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "row_bits.hpp"

namespace dolmen {

class ChangedRows {
 public:
  // `row_max` is above any row number given out so far. A row may be added again.
  void add(std::uint32_t row, std::size_t row_max) {
    if (bits_.is_empty()) {
      numbers_.push_back(row);
      if (numbers_.size() * kRowsPerNumber > row_max) spread(row_max);
    } else {
      bits_.make_room(std::size_t{row} + 1);
      bits_.set(row);
    }
  }

  // Sets the bits of these rows in `bits`; what it has no room for is left out.
  void mark(std::vector<std::uint64_t>& bits) const noexcept {
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

  std::vector<std::uint32_t> numbers_;  // Empty once there are bits.
  RowBits bits_;
};

}  // namespace dolmen
