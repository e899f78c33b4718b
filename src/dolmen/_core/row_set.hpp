// A set of row numbers whose n-th member is found at once, however the members lie.
//
// Above the bits stands a tree of 16 branches a node. A node is one cache line, and tells for each branch how many
// members the branches before it hold: finding compares 16 numbers at once, and so does counting one more. What it
// finds follows from the members alone, not from the order in which they came.
//
// Threads: as for a vector.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "row_bits.hpp"

namespace dolmen {

class RowSet {
 public:
  std::size_t size() const noexcept { return count_; }
  std::size_t memory_size() const noexcept {
    std::size_t size = bits_.memory_size();
    for (const auto& level : levels_) size += level.capacity() * sizeof(Node);
    return size;
  }

  bool contains(std::uint32_t row) const noexcept { return row < row_max_ && bits_.test(row); }

  // Rows up to `row` may be members from now on. May throw std::bad_alloc, and no row has come or gone then.
  void make_room(std::uint32_t row) {
    if (row < row_max_) [[likely]]
      return;
    bits_.make_room(std::size_t{row} + 1);
    std::size_t node_count = bits_.word_count();
    for (std::size_t i = 0; i == 0 || node_count > 1; ++i) {
      node_count = (node_count + kBranches - 1) / kBranches;
      if (i < levels_.size()) {
        levels_[i].resize(node_count);
      } else {
        std::vector<Node> level(node_count);
        level[0].count_after(0, static_cast<std::uint32_t>(count_));  // The tree so far is its first branch.
        levels_.push_back(std::move(level));
      }
    }
    row_max_ = bits_.row_count();
  }

  // `row` is no member, and there is room for it.
  void insert(std::uint32_t row) noexcept {
    bits_.set(row);
    count_ += 1;
    count_at(row, 1);
  }
  // `row` is a member.
  void erase(std::uint32_t row) noexcept {
    bits_.clear(row);
    count_ -= 1;
    count_at(row, static_cast<std::uint32_t>(-1));
  }

  // Puts in place of each n the member that n members lie below of; n < size(). All go down the tree side by side, so
  // that they wait for memory together.
  void find_nth(std::span<std::uint32_t> numbers) const noexcept {
    std::array<std::uint32_t, kTogether> at;
    for (; !numbers.empty(); numbers = numbers.subspan(std::min(kTogether, numbers.size()))) {
      const std::size_t count = std::min(kTogether, numbers.size());
      at.fill(0);
      for (auto level = levels_.rbegin(); level != levels_.rend(); ++level) {
        for (std::size_t i = 0; i < count; ++i) {
          const Node& node = (*level)[at[i]];
          const std::uint32_t branch = node.branch_of(numbers[i]);
          numbers[i] -= node.before[branch];
          at[i] = at[i] * kBranches + branch;
        }
      }
      for (std::size_t i = 0; i < count; ++i) numbers[i] = at[i] * 64 + nth_bit(bits_.word(at[i]), numbers[i]);
    }
  }

 private:
  static constexpr unsigned kBranches = 16;
  static constexpr std::size_t kTogether = 64;
  static constexpr unsigned kWordBits = 6;

  struct alignas(64) Node {
    std::array<std::uint32_t, kBranches> before{};  // Members of the branches before each.

    void count_after(std::size_t branch, std::uint32_t count) noexcept {
      for (std::size_t i = 0; i < kBranches; ++i) before[i] += i > branch ? count : 0;
    }
    // The last branch that no more than n members lie before; so an empty one is never it.
    std::uint32_t branch_of(std::uint32_t n) const noexcept {
      std::uint32_t count = 0;
      for (std::size_t i = 0; i < kBranches; ++i) count += before[i] <= n ? 1 : 0;
      return count - 1;
    }
  };

  void count_at(std::uint32_t row, std::uint32_t count) noexcept {
    std::size_t at = row >> kWordBits;
    for (std::vector<Node>& level : levels_) {
      level[at / kBranches].count_after(at % kBranches, count);
      at /= kBranches;
    }
  }

  // The place of the bit that n set bits lie below of; S. Vigna, "Broadword implementation of rank/select queries",
  // WEA 2008: the bits of all bytes are counted and summed up at once.
  static std::uint32_t nth_bit(std::uint64_t bits, std::uint32_t n) noexcept {
    constexpr std::uint64_t kOnes = 0x0101010101010101;
    constexpr std::uint64_t kTops = 0x8080808080808080;
    std::uint64_t sums = bits - ((bits >> 1) & 0x5555555555555555);
    sums = (sums & 0x3333333333333333) + ((sums >> 2) & 0x3333333333333333);
    sums = ((sums + (sums >> 4)) & 0x0F0F0F0F0F0F0F0F) * kOnes;  // Each byte: the bits of it and those below.
    const std::uint64_t is_below = ((n * kOnes | kTops) - sums) & kTops;
    const std::uint64_t shift = ((is_below >> 7) * kOnes >> 56) * 8;
    bits >>= shift;
    for (n -= static_cast<std::uint32_t>((sums << 8) >> shift & 0xFF); n > 0; --n) bits &= bits - 1;
    return static_cast<std::uint32_t>(shift) + static_cast<std::uint32_t>(std::countr_zero(bits));
  }

  RowBits bits_;
  std::vector<std::vector<Node>> levels_;  // The first is of branches that are words.
  std::size_t row_max_ = 0;                // Rows below it have room.
  std::size_t count_ = 0;
};

}  // namespace dolmen
