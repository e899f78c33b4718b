// Which rows changed in one epoch: their numbers while they are few, one bit a row once that takes less.
//
// One writer calls all.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dolmen {

class ChangedRows {
 public:
  // `row_max` is above any row number given out so far. A row may be added again.
  void add(std::uint32_t row, std::size_t row_max) {
    if (bits_.empty()) {
      numbers_.push_back(row);
      if (numbers_.size() * kRowsPerNumber > row_max) spread(row_max);
    } else {
      if (row / 64 >= bits_.size()) bits_.resize(std::max<std::size_t>(row_max / 64, row / 64 + 1));
      bits_[row / 64] |= std::uint64_t{1} << (row % 64);
    }
  }

  // Sets the bits of these rows in `bits`; what it has no room for is left out.
  void mark(std::vector<std::uint64_t>& bits) const noexcept {
    for (const std::uint32_t row : numbers_) {
      if (row / 64 < bits.size()) bits[row / 64] |= std::uint64_t{1} << (row % 64);
    }
    for (std::size_t i = 0; i < std::min(bits.size(), bits_.size()); ++i) bits[i] |= bits_[i];
  }

  std::size_t memory_size() const noexcept {
    return numbers_.capacity() * sizeof(std::uint32_t) + bits_.capacity() * sizeof(std::uint64_t);
  }

 private:
  static constexpr std::size_t kRowsPerNumber = 32;  // As many bits as a number has.

  void spread(std::size_t row_max) {
    bits_.resize((row_max + 63) / 64, 0);
    mark(bits_);
    numbers_ = {};
  }

  std::vector<std::uint32_t> numbers_;  // Empty once there are bits.
  std::vector<std::uint64_t> bits_;
};

}  // namespace dolmen
