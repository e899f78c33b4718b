// One bit a row, in blocks that never move: growing copies nothing, however many rows there are.
//
// Threads: as for a vector.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace dolmen {

class RowBits {
 public:
  std::size_t word_count() const noexcept { return blocks_.size() * kBlockWords; }  // Of 64 rows each.
  // Rows beyond it have no bit yet.
  std::size_t row_count() const noexcept { return word_count() * 64; }
  bool is_empty() const noexcept { return blocks_.empty(); }
  std::uint64_t& word(std::size_t i) noexcept { return (*blocks_[i / kBlockWords])[i % kBlockWords]; }
  std::uint64_t word(std::size_t i) const noexcept { return (*blocks_[i / kBlockWords])[i % kBlockWords]; }

  bool test(std::uint32_t row) const noexcept { return (word(row / 64) >> (row % 64) & 1) != 0; }
  void set(std::uint32_t row) noexcept { word(row / 64) |= std::uint64_t{1} << (row % 64); }
  void clear(std::uint32_t row) noexcept { word(row / 64) &= ~(std::uint64_t{1} << (row % 64)); }

  // Gives at least so many rows a bit, 0 at first. May throw std::bad_alloc, and has changed nothing then, or given
  // fewer.
  void make_room(std::size_t row_count) {
    while (this->row_count() < row_count) blocks_.push_back(std::make_unique<Block>());
  }
  void clear_all() noexcept {
    for (const auto& block : blocks_) block->fill(0);
  }

  std::size_t memory_size() const noexcept {
    return blocks_.size() * sizeof(Block) + blocks_.capacity() * sizeof(blocks_[0]);
  }

 private:
  static constexpr std::size_t kBlockWords = 512;  // A page.
  using Block = std::array<std::uint64_t, kBlockWords>;
  std::vector<std::unique_ptr<Block>> blocks_;
};

}  // namespace dolmen
