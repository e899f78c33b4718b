// The gradients of one batch, those of equal FIDs added up in the order given.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "hash.hpp"
#include "processor.hpp"

namespace dolmen {

// The positions of a batch are put in order by FID, and equal ones are added up only when their row is at hand: each
// gradient is read once, in an order that is known ahead, and no sum waits in memory. Keeps its own memory from batch
// to batch. One thread at a time.
class GradientSums {
 public:
  // `seed` is secret, so that nobody can choose FIDs that meet in one place.
  explicit GradientSums(std::uint64_t seed) noexcept : factor_(mix64(seed) | 1) {}

  // For a batch of so many FIDs.
  void make_room(std::size_t fid_count) {
    heads_.resize(std::bit_ceil(std::max<std::size_t>(2 * fid_count, 2)));
    if (order_.size() >= fid_count + kAheadMax) return;
    mine_.resize(fid_count);
    ends_.resize(fid_count);
    fids_.resize(fid_count);
    order_.resize(fid_count + kAheadMax);  // Last, since it tells that there is room in all.
  }

  // Of the FIDs whose hash falls to this share, of so many. There must be room. Both spans must stay as they are while
  // the sums are used.
  void group(std::span<const std::int64_t> fids, std::span<const float> gradients, std::size_t share,
             std::size_t share_count) noexcept {
    gradients_ = gradients.data();
    const std::size_t mine_count = number(fids, share, share_count);
    std::uint32_t begin = 0;
    for (std::size_t i = 0; i < count_; ++i) begin += std::exchange(ends_[i], begin);
    // Each begin moves on to its end while its positions are put down.
    for (std::size_t i = 0; i < mine_count; ++i) order_[ends_[mine_[i].number]++] = mine_[i].position;
    std::fill_n(order_.data() + mine_count, kAheadMax, 0U);
  }

  std::span<const std::int64_t> fids() const noexcept { return {fids_.data(), count_}; }  // Each once, by their first.

  // The sum of the i-th FID's gradients: the only one, where it stands, or made in `room`. `dim` may be a constant of
  // the type.
  template <typename Dim>
  DOLMEN_INLINE const float* sum(std::size_t i, Dim dim, float* room) const noexcept {
    const std::uint32_t* begin = order_.data() + (i == 0 ? 0 : ends_[i - 1]);
    const std::uint32_t* end = order_.data() + ends_[i];
    // Far enough ahead for the many gradients of a frequent FID, which are added up in a few nanoseconds each; but not
    // so far that they push out the rows that wait for their step.
    const std::size_t line_count = (dim + kLineFloats - 1) / kLineFloats;
    const std::size_t ahead = std::clamp(kLinesAhead / line_count, kAhead, kAheadMax);
    for (const std::uint32_t* each = begin; each != end; ++each) {
      const float* gradient = gradients_ + each[ahead] * dim;
      for (std::size_t j = 0; j < dim; j += kLineFloats) __builtin_prefetch(gradient + j);
    }
    if (end - begin == 1) return gradients_ + *begin * dim;
    std::size_t column = 0;
    for (; column + 4 * kPiece <= dim; column += 4 * kPiece) add_up<4>(begin, end, dim, column, room);
    for (; column + kPiece <= dim; column += kPiece) add_up<1>(begin, end, dim, column, room);
    for (; column < dim; ++column) {
      room[column] = gradients_[*begin * dim + column];
      for (const std::uint32_t* each = begin + 1; each != end; ++each) {
        room[column] += gradients_[*each * dim + column];
      }
    }
    return room;
  }

 private:
  static constexpr std::size_t kAhead = 12;
  static constexpr std::size_t kAheadMax = 32;
  static constexpr std::size_t kLinesAhead = 64;
  struct Mine {
    std::uint32_t position, number;  // In the batch; of its FID.
  };
  static constexpr std::size_t kLineFloats = 64 / sizeof(float);
  using Piece = float __attribute__((vector_size(32), aligned(alignof(float)), may_alias));
  static constexpr std::size_t kPiece = sizeof(Piece) / sizeof(float);

  // So many columns at a time that their sums stay in registers.
  template <std::size_t count, typename Dim>
  DOLMEN_INLINE void add_up(const std::uint32_t* begin, const std::uint32_t* end, Dim dim, std::size_t column,
                            float* room) const noexcept {
    Piece total[count];
    const float* from = gradients_ + column;
    for (std::size_t k = 0; k < count; ++k) {
      total[k] = *reinterpret_cast<const Piece*>(from + *begin * dim + k * kPiece);
    }
    for (const std::uint32_t* each = begin + 1; each != end; ++each) {
      for (std::size_t k = 0; k < count; ++k) {
        total[k] += *reinterpret_cast<const Piece*>(from + *each * dim + k * kPiece);
      }
    }
    for (std::size_t k = 0; k < count; ++k) *reinterpret_cast<Piece*>(room + column + k * kPiece) = total[k];
  }

  // Gives each FID of the share a number, in the order of their firsts, and counts into `ends_` how often each comes.
  // Returns how many positions are of the share.
  std::size_t number(std::span<const std::int64_t> fids, std::size_t share, std::size_t share_count) noexcept {
    std::ranges::fill(heads_, 0U);
    const unsigned shift = 64 - static_cast<unsigned>(std::countr_zero(heads_.size()));
    const std::size_t mask = heads_.size() - 1;
    std::uint32_t* heads = heads_.data();
    std::uint32_t count = 0;
    std::size_t mine_count = 0;
    for (std::size_t i = 0; i < fids.size(); ++i) {
      if (i + kAhead < fids.size()) __builtin_prefetch(heads + (hash_of(fids[i + kAhead]) >> shift), 1);
      const std::uint64_t hash = hash_of(fids[i]);
      if (share_count > 1 && ((hash >> 32) * share_count) >> 32 != share) continue;
      // Whether a FID is new can't be predicted, so both are written alike: as if it were new, which does no harm.
      fids_[count] = fids[i];
      ends_[count] = 0;
      std::size_t at = hash >> shift;
      std::uint32_t number = heads[at] == 0 ? count : heads[at] - 1;
      while (fids_[number] != fids[i]) [[unlikely]] {
        at = (at + 1) & mask;
        number = heads[at] == 0 ? count : heads[at] - 1;
      }
      heads[at] = number + 1;
      mine_[mine_count++] = {static_cast<std::uint32_t>(i), number};
      ends_[number] += 1;
      count += number == count ? 1 : 0;
    }
    count_ = count;
    return mine_count;
  }

  std::uint64_t hash_of(std::int64_t fid) const noexcept { return static_cast<std::uint64_t>(fid) * factor_; }

  std::uint64_t factor_;
  std::vector<std::uint32_t> heads_;  // Open addressing, at most half full: 1 + the number of a FID; 0: none.
  std::vector<Mine> mine_;
  std::vector<std::uint32_t> order_;  // Positions by number, then in the order given; then kAheadMax more.
  std::vector<std::uint32_t> ends_;   // By number: where its positions end in the order.
  std::vector<std::int64_t> fids_;    // By number.
  const float* gradients_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace dolmen
