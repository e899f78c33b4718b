// Who gets a row: what is remembered of FIDs that have none yet, for one slot.
//
// Each kind counts one sight at a time and says whether the FID has now earned its row: `admit_after` = n means at its
// n-th sight (the papers' filters, which compare the count before the sight with a threshold t, say n = t + 1). Each
// has a bound on its memory and forgets the oldest beyond it. The same sights in the same order give the same answers.
//
// One writer calls all.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <variant>
#include <vector>

#include "mapping.hpp"

namespace dolmen {

struct Sights {
  std::int64_t count, last_us;  // A count of 0: not admitted.
};

struct PendingFid {
  std::int64_t fid, count, last_seen_us;
};

enum class AdmissionKind : std::uint8_t { kExact, kSketch, kBloom, kProbabilistic, kProportional };

struct AdmissionOptions {
  AdmissionKind kind = AdmissionKind::kExact;
  std::int64_t admit_after = 0;
  std::uint32_t capacity = 0;  // Of FIDs that are remembered.
};

// A count and a time for each FID; beyond `capacity`, the one that was not seen for the longest is forgotten. Memory is
// reserved at once and used as it fills, so that nothing is ever moved.
class ExactCounts {
 public:
  ExactCounts(const AdmissionOptions& options, std::uint64_t hash_seed);

  Sights see(std::int64_t fid, std::int64_t now_us);
  void erase(std::int64_t fid) noexcept;
  // Forgets up to `count_max` whose last sight was `after_us` ago, from the oldest sight on.
  // Returns how many.
  std::size_t expire(std::int64_t now_us, std::int64_t after_us, std::size_t count_max) noexcept;
  void copy_to(std::vector<PendingFid>& all) const;  // From the oldest sight to the newest.
  void restore(const PendingFid& pending);           // As the newest.
  std::size_t memory_size() const noexcept;

 private:
  static constexpr std::uint32_t kNone = 0;  // Entries are numbered from 1.
  struct Entry {
    std::int64_t fid, count, last_us;
    std::uint32_t older, newer;
  };

  Entry& entry(std::uint32_t number) const noexcept { return entries_[number - 1]; }
  std::uint32_t* place_of(std::int64_t fid) const noexcept;
  std::uint32_t add(std::int64_t fid);
  void remove(std::uint32_t* place) noexcept;
  void unlink(const Entry& each) noexcept;
  void link_newest(std::uint32_t number) noexcept;

  std::int64_t admit_after_;
  std::uint32_t capacity_;
  std::uint64_t hash_seed_, mask_;
  Mapping entry_memory_, place_memory_;
  Entry* entries_;
  std::uint32_t* places_;  // Open addressing, at most half full: an entry's number or kNone.
  std::uint32_t count_ = 0, used_end_ = 0, free_ = kNone, oldest_ = kNone, newest_ = kNone;
};

// Monolith's sliding counting sketch (Liu et al., 2022, section 3, and its published filter): seven splits of cells of
// 12 bits of signature and 4 of count. A FID is looked for in the head split and the one ahead; an old count is carried
// forward from the five behind. A full head moves on, and the split that comes ahead of it is emptied: the oldest
// counts are forgotten. Two FIDs that meet in cell and signature share a count, so some are admitted early; a FID that
// finds neither its signature nor an empty cell is admitted at once, and counted as a failure.
class SlidingSketch {
 public:
  static constexpr std::int64_t kAdmitAfterMax = 16;

  SlidingSketch(const AdmissionOptions& options, std::uint64_t seed);

  Sights see(std::int64_t fid, std::int64_t now_us);
  std::uint64_t failure_count() const noexcept { return failure_count_; }
  std::size_t memory_size() const noexcept { return kSplitCount * split_size_ * sizeof(Cell); }
  std::vector<std::uint8_t> state() const;
  bool restore(std::span<const std::uint8_t> state);  // False where it does not fit.

 private:
  using Cell = std::uint16_t;
  static constexpr std::size_t kSplitCount = 7;
  static constexpr std::size_t kForward = 2;
  static constexpr std::size_t kStepMax = 16;
  static constexpr unsigned kCountBits = 4;
  static constexpr unsigned kCountMax = (1U << kCountBits) - 1;
  struct Split {
    Mapping memory;
    std::uint64_t used_count = 0;
    Cell* cells() const noexcept { return reinterpret_cast<Cell*>(memory.data()); }
  };

  Cell* find(const Split& split, std::uint64_t hash) const noexcept;
  void advance();

  std::int64_t admit_after_;
  std::uint64_t seed_;
  std::uint64_t split_capacity_, split_size_;
  std::array<Split, kSplitCount> splits_;
  std::uint64_t head_ = 0, advance_count_ = 0, failure_count_ = 0;
};

// A counting Bloom filter: four counters for each FID, raised as little as the count needs. Counters have as many bits
// as `admit_after` needs: one at 2 (seen before or not), two up to 4, four up to 16. There are two generations of half
// the capacity; a full one becomes the older, and what the one before it held is forgotten. It never counts too little
// of what it remembers; near capacity about one new FID in eighty is counted too high.
class CountingBloom {
 public:
  static constexpr std::int64_t kAdmitAfterMax = 16;

  CountingBloom(const AdmissionOptions& options, std::uint64_t seed);

  Sights see(std::int64_t fid, std::int64_t now_us);
  std::size_t memory_size() const noexcept { return 2 * byte_count_; }
  std::vector<std::uint8_t> state() const;
  bool restore(std::span<const std::uint8_t> state);

 private:
  static constexpr std::size_t kHashCount = 4;
  static constexpr std::uint64_t kCountersPerFid = 10;

  unsigned counter(const Mapping& generation, std::uint64_t at) const noexcept;
  void raise(std::uint64_t at, unsigned to) noexcept;

  std::int64_t admit_after_;
  std::uint64_t seed_;
  unsigned bits_;
  std::uint64_t generation_capacity_, counter_count_, byte_count_;
  Mapping newer_, older_;
  std::uint64_t newer_count_ = 0;  // FIDs counted in it.
};

// Remembers nothing: of an absent FID's j-th sight in one batch, it is admitted with the chance 1 - 0.05^(j / n)
// (kProbabilistic: each sight has the same chance, and n sights make 95 %), or min(1, j / n) (kProportional). The draw
// is a hash of (seed, FID, number of the batch), so a run that is repeated admits the same.
class Chance {
 public:
  Chance(const AdmissionOptions& options, std::uint64_t seed);

  Sights see(std::int64_t fid, std::int64_t now_us, std::uint64_t batch);
  std::size_t memory_size() const noexcept { return 0; }

 private:
  double chance(std::uint32_t sight) const noexcept;

  AdmissionKind kind_;
  double admit_after_;
  std::uint64_t seed_;
  std::uint64_t batch_ = 0;
  std::unordered_map<std::int64_t, std::uint32_t> sights_;  // In this batch, of FIDs that were refused.
};

using Admission = std::variant<ExactCounts, SlidingSketch, CountingBloom, Chance>;

// `seed` decides what is counted wrongly and drawn; `hash_seed` only places, and shows in no answer.
Admission make_admission(const AdmissionOptions& options, std::uint64_t seed, std::uint64_t hash_seed);

}  // namespace dolmen
