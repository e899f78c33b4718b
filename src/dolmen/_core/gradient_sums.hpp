// The gradients of one batch, those of equal FIDs added up in the order given.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "hash.hpp"
#include "processor.hpp"

namespace dolmen {

// Keeps its memory from batch to batch. One thread at a time.
class GradientSums {
 public:
  // `seed` is secret, so that nobody can choose FIDs that meet in one place.
  explicit GradientSums(std::uint64_t seed) noexcept : factor_(mix64(seed) | 1) {}

  // For a batch of so many FIDs.
  void make_room(std::size_t fid_count, std::size_t dim) {
    heads_.resize(std::bit_ceil(std::max<std::size_t>(2 * fid_count, 2)));
    if (fids_.size() < fid_count) {
      fids_.resize(fid_count);
      sources_.resize(fid_count);
    }
    if (const std::size_t needed = fid_count / 2 * dim; sums_size_ < needed) {
      sums_ = std::make_unique_for_overwrite<float[]>(needed);
      sums_size_ = needed;
    }
  }

  // Of the FIDs whose hash falls to this share, of so many. There must be room. Both spans must stay as they are while
  // the sums are used. `dim` may be a constant of the type.
  template <typename Dim>
  DOLMEN_INLINE void sum(std::span<const std::int64_t> fids, std::span<const float> gradients, Dim dim,
                         std::size_t share, std::size_t share_count) noexcept {
    std::ranges::fill(heads_, 0);
    const unsigned shift = 64 - static_cast<unsigned>(std::countr_zero(heads_.size()));
    const std::size_t mask = heads_.size() - 1;
    // A head is 1 + the position in fids_, under as many bits of the hash as there is room for; 0: none.
    const unsigned position_bits = static_cast<unsigned>(std::bit_width(fids.size()));
    const auto position_mask = static_cast<std::uint32_t>((std::uint64_t{1} << position_bits) - 1);
    std::uint32_t* heads = heads_.data();
    std::int64_t* unique = fids_.data();
    const float** sources = sources_.data();
    float* sums = sums_.get();
    float* sums_end = sums;
    std::size_t unique_count = 0;
    for (std::size_t i = 0; i < fids.size(); ++i) {
      if (i + kAhead < fids.size()) __builtin_prefetch(heads + (hash_of(fids[i + kAhead]) >> shift), 1);
      const std::int64_t fid = fids[i];
      const std::uint64_t hash = hash_of(fid);
      if (share_count > 1 && ((hash >> 32) * share_count) >> 32 != share) continue;
      const std::uint32_t tag = static_cast<std::uint32_t>(hash >> 8) & ~position_mask;
      std::size_t at = hash >> shift;
      const float* more = gradients.data() + i * dim;
      for (;; at = (at + 1) & mask) {
        const std::uint32_t head = heads[at];
        if (head == 0) {
          heads[at] = tag | static_cast<std::uint32_t>(unique_count + 1);
          unique[unique_count] = fid;
          sources[unique_count] = more;
          unique_count += 1;
          break;
        }
        const std::size_t position = (head & position_mask) - 1;
        if ((head & ~position_mask) != tag || unique[position] != fid) continue;
        const float* source = sources[position];
        float* sum = sums_end;
        if (const std::size_t begin = at_in_sums(source); begin < sums_size_) {
          sum = sums + begin;
          for (std::size_t j = 0; j < dim; ++j) sum[j] += more[j];
        } else {
          sums_end += dim;
          for (std::size_t j = 0; j < dim; ++j) sum[j] = source[j] + more[j];
          sources[position] = sum;
        }
        break;
      }
    }
    count_ = unique_count;
  }

  std::span<const std::int64_t> fids() const noexcept { return {fids_.data(), count_}; }  // Each once, by their first.
  const float* sum(std::size_t i) const noexcept { return sources_[i]; }

 private:
  static constexpr std::size_t kAhead = 12;

  // Where in the sums a source begins; past their end if it stands elsewhere.
  std::size_t at_in_sums(const float* source) const noexcept {
    return (reinterpret_cast<std::uintptr_t>(source) - reinterpret_cast<std::uintptr_t>(sums_.get())) / sizeof(float);
  }
  std::uint64_t hash_of(std::int64_t fid) const noexcept { return static_cast<std::uint64_t>(fid) * factor_; }

  std::uint64_t factor_;
  std::vector<std::uint32_t> heads_;  // Open addressing, at most half full.
  std::vector<std::int64_t> fids_;
  std::vector<const float*> sources_;  // Of each of them: its only gradient, or its sum.
  std::unique_ptr<float[]> sums_;
  std::size_t sums_size_ = 0;
  std::size_t count_ = 0;
};

}  // namespace dolmen
