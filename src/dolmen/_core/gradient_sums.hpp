// The gradients of one batch, those of equal FIDs added up in the order given.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "hash.hpp"

namespace dolmen {

// Keeps its memory from batch to batch. One thread at a time.
class GradientSums {
 public:
  // Both spans must stay as they are while the sums are used.
  void sum(std::span<const std::int64_t> fids, std::span<const float> gradients, std::size_t dim) {
    constexpr std::size_t kAhead = 8;
    gradients_ = gradients;
    dim_ = dim;
    heads_.assign(std::bit_ceil(2 * fids.size() + 1), 0);
    fids_.clear();
    sources_.clear();
    sums_.clear();
    for (std::size_t i = 0; i < fids.size(); ++i) {
      if (i + kAhead < fids.size()) __builtin_prefetch(&heads_[hash_of(fids[i + kAhead]) & (heads_.size() - 1)], 1);
      std::uint64_t& head = head_of(fids[i]);
      if (head == 0) {
        fids_.push_back(fids[i]);
        sources_.push_back({static_cast<std::uint32_t>(i), false});
        head = (hash_of(fids[i]) & kTagMask) | fids_.size();
      } else {
        add(sources_[(head & ~kTagMask) - 1], i);
      }
    }
  }

  std::span<const std::int64_t> fids() const noexcept { return fids_; }  // Each once, in the order of their first.
  const float* sum(std::size_t i) const noexcept {
    return sources_[i].is_summed ? &sums_[sources_[i].at * dim_] : &gradients_[sources_[i].at * dim_];
  }

 private:
  static constexpr std::uint64_t kTagMask = 0xFFFFFFFF00000000U;

  struct Source {
    std::uint32_t at;  // Row of the gradients, or of the sums.
    bool is_summed;
  };

  static std::uint64_t hash_of(std::int64_t fid) noexcept { return mix64(static_cast<std::uint64_t>(fid)); }

  std::uint64_t& head_of(std::int64_t fid) noexcept {
    const std::uint64_t hash = hash_of(fid);
    const std::size_t mask = heads_.size() - 1;
    std::size_t at = hash & mask;
    for (; heads_[at] != 0; at = (at + 1) & mask) {
      const bool is_alike = ((heads_[at] ^ hash) & kTagMask) == 0;
      if (is_alike && fids_[(heads_[at] & ~kTagMask) - 1] == fid) break;
    }
    return heads_[at];
  }

  void add(Source& source, std::size_t i) {
    const auto more = gradients_.subspan(i * dim_, dim_);
    if (!source.is_summed) {
      const auto first = gradients_.subspan(source.at * dim_, dim_);
      source = {static_cast<std::uint32_t>(sums_.size() / dim_), true};
      sums_.insert(sums_.end(), first.begin(), first.end());
    }
    float* sum = &sums_[source.at * dim_];
    for (std::size_t j = 0; j < dim_; ++j) sum[j] += more[j];
  }

  std::span<const float> gradients_;
  std::size_t dim_ = 0;
  std::vector<std::uint64_t> heads_;  // Open addressing: 1 + position in fids_ under half of the hash, or 0.
  std::vector<std::int64_t> fids_;
  std::vector<Source> sources_;
  std::vector<float> sums_;
};

}  // namespace dolmen
