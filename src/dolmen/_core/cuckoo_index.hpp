// The map FID -> row number: a bucketised cuckoo table in small segments, read without locks.
//
// A bucket is one cache line: five FIDs, their row numbers, and a version stamp that also guards the rows themselves.
// So a look-up touches one random line (two if the FID stands in its second bucket), then the row.
//
// A FID has two buckets, both in one segment; the segment comes from the top bits of its hash through a directory
// (extendible hashing). A full segment is rebuilt a quarter larger, or split in two: growth never stops the world, and
// the load never falls below three quarters of the best. The hash is seeded, so chosen FIDs don't meet in a bucket.
//
// One writer calls what is not const, `place_of` and `for_each`; any thread calls the rest, in a visit of `readers()`.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "hash.hpp"
#include "mapping.hpp"
#include "processor.hpp"
#include "shared_memory.hpp"

namespace dolmen {

struct alignas(64) Bucket {
  static constexpr unsigned kLanes = 5;
  static constexpr std::int64_t kFree = -1;  // No FID: a FID's sign bit is 0.

  std::atomic<std::uint32_t> version{0};
  std::array<std::atomic<std::uint32_t>, kLanes> rows{};
  std::array<std::atomic<std::int64_t>, kLanes> fids{kFree, kFree, kFree, kFree, kFree};

  // The lane that holds `fid`, or kLanes. Without branches: where a FID stands can't be predicted.
  unsigned lane_of(std::int64_t fid) const noexcept {
    unsigned lane = kLanes;
    for (unsigned i = 0; i < kLanes; ++i) {
      lane = fids[i].load(std::memory_order_relaxed) == fid ? i : lane;
    }
    return lane;
  }
  std::uint32_t row(unsigned lane) const noexcept { return rows[lane].load(std::memory_order_relaxed); }
};
static_assert(sizeof(Bucket) == 64);

// As Bucket::lane_of, for loops over many FIDs.
DOLMEN_INLINE unsigned lane_of(Portable, const Bucket& bucket, std::int64_t fid) noexcept {
  return bucket.lane_of(fid);
}
#ifdef DOLMEN_HAS_AVX2
DOLMEN_AVX2 inline unsigned lane_of(Avx2, const Bucket& bucket, std::int64_t fid) noexcept {
  // The FIDs are the words 3 to 7 of the line.
  const auto* halves = reinterpret_cast<const __m256i*>(&bucket);
  const __m256i wanted = _mm256_set1_epi64x(fid);
  const __m256i low = _mm256_cmpeq_epi64(_mm256_load_si256(halves), wanted);
  const __m256i high = _mm256_cmpeq_epi64(_mm256_load_si256(halves + 1), wanted);
  const auto equal = static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(low)) >> 3 |
                                           _mm256_movemask_pd(_mm256_castsi256_pd(high)) << 1);
  return static_cast<unsigned>(std::countr_zero(equal | 1U << Bucket::kLanes));
}
#endif

struct GiveBack {
  PieceArena* arena = nullptr;  // From where the memory came, or null for the heap.
  std::size_t size = 0;
  void operator()(void* memory) const noexcept;
};

class CuckooIndex {
 public:
  // Where a FID stands, for the writer. `bucket` is null where it is absent.
  struct Place {
    Bucket* bucket = nullptr;
    unsigned lane = 0;
    explicit operator bool() const noexcept { return bucket != nullptr; }
    std::uint32_t row() const noexcept { return bucket->row(lane); }
  };

  // A FID's two buckets as they are now.
  struct Choice {
    Bucket* first;
    Bucket* second;
  };

  explicit CuckooIndex(std::uint64_t hash_seed);
  ~CuckooIndex();
  CuckooIndex(const CuckooIndex&) = delete;
  CuckooIndex& operator=(const CuckooIndex&) = delete;

  std::size_t size() const noexcept { return size_.load(std::memory_order_relaxed); }
  std::size_t bucket_count() const noexcept { return bucket_count_; }
  std::size_t memory_size() const noexcept;
  // How many FIDs were moved to another segment so far: what growth has cost.
  std::uint64_t moved_count() const noexcept { return moved_count_; }

  Choice choice(std::int64_t fid) const noexcept { return choice(fid, *directory_.load(std::memory_order_acquire)); }

  Place place_of(std::int64_t fid) const noexcept {
    const Choice buckets = choice(fid);
    if (const unsigned lane = buckets.first->lane_of(fid); lane < Bucket::kLanes) return {buckets.first, lane};
    if (const unsigned lane = buckets.second->lane_of(fid); lane < Bucket::kLanes) return {buckets.second, lane};
    return {};
  }

  // Where a FID was found, and its bucket's stamp at that moment. `bucket` is null where it was in neither bucket.
  struct Finding {
    Bucket* bucket;
    std::uint32_t version;
    std::uint32_t row;
    std::byte* memory;  // What `fetch` gave for the row.
  };

  // Looks for many FIDs at once: while some wait for memory, others are on their way. Calls `fetch(row)` as soon as a
  // row is known, to call its memory in and say where it is; some time later `use(i, finding)`, for each i in order. A
  // finding may be out of date by then; `is_current` tells a reader, after it has copied, whether it was good.
  //
  // FIDs go from stage to stage in blocks, and each stage is a short loop, so that the processor meets many calls for
  // memory close together. In a large table each of them waits for its address translation first, and few would wait at
  // the same time if they came one by one, with all other stages in between.
  template <typename Processor, typename Fetch, typename Use>
  DOLMEN_INLINE void find_each(Processor processor, std::span<const std::int64_t> fids, const Fetch& fetch,
                               const Use& use) const noexcept {
    constexpr std::size_t kBlock = 32;
    constexpr std::size_t kRing = 4 * kBlock;
    std::array<Finding, kRing> ring;
    std::array<std::size_t, kRing> missing;  // Positions of FIDs that were not in their first bucket.
    std::size_t missing_begin = 0;
    std::size_t missing_end = 0;
    // A directory that is replaced meanwhile leads to segments that are marked as out of date.
    const Directory directory = *directory_.load(std::memory_order_acquire);
    const std::size_t count = fids.size();
    for (std::size_t begin = 0; begin < count + 3 * kBlock; begin += kBlock) {
      for (std::size_t i = begin; i < std::min(begin + kBlock, count); ++i) {
        Bucket* bucket = choice(fids[i], directory).first;
        ring[i % kRing].bucket = bucket;
        __builtin_prefetch(bucket);
      }
      if (begin < kBlock) continue;
      const std::size_t missing_before = missing_end;
      for (std::size_t i = begin - kBlock; i < std::min(begin, count); ++i) {
        Finding& found = ring[i % kRing];
        if (look(processor, found, fids[i])) [[likely]] {
          found.memory = fetch(found.row);
        } else {
          found.bucket = choice(fids[i], directory).second;
          __builtin_prefetch(found.bucket);
          missing[missing_end++ % kRing] = i;
        }
      }
      for (; missing_begin < missing_before; ++missing_begin) {
        const std::size_t i = missing[missing_begin % kRing];
        Finding& found = ring[i % kRing];
        if (look(processor, found, fids[i])) {
          found.memory = fetch(found.row);
        } else {
          found.bucket = nullptr;
        }
      }
      if (begin < 3 * kBlock) continue;
      for (std::size_t i = begin - 3 * kBlock; i < std::min(begin - 2 * kBlock, count); ++i) use(i, ring[i % kRing]);
    }
  }

  static bool is_current(const Finding& found) noexcept {
    fence_acquire();
    return (found.version & 1) == 0 && found.bucket->version.load(std::memory_order_relaxed) == found.version;
  }

  // `fid` must be absent. May throw std::bad_alloc, and has changed nothing then.
  // What it replaces is freed by a later `readers().collect()`.
  Place insert(std::int64_t fid, std::uint32_t row);
  void erase(Place place) noexcept;
  // Makes room for so many FIDs at once, where none has come yet; else they find it as they come.
  void reserve(std::size_t row_count);

  // Looks for a reader until it saw one consistent state. `copy(row)` copies what the row holds and is
  // called again if the row changed meanwhile. Returns whether the FID is present.
  template <typename Copy>
  bool read(std::int64_t fid, const Copy& copy) const noexcept {
    for (;;) {
      const Choice buckets = choice(fid);
      const std::uint32_t first_version = buckets.first->version.load(std::memory_order_acquire);
      Bucket* found = buckets.first;
      std::uint32_t version = first_version;
      unsigned lane = buckets.first->lane_of(fid);
      if (lane == Bucket::kLanes) {
        found = buckets.second;
        version = buckets.second->version.load(std::memory_order_acquire);
        lane = buckets.second->lane_of(fid);
      }
      if (lane < Bucket::kLanes) {
        if ((version & 1) != 0) continue;
        copy(found->row(lane));
        fence_acquire();
        if (found->version.load(std::memory_order_relaxed) == version) return true;
      } else {
        // Absent only if it was absent in both at one instant: neither may have changed since the first was read.
        fence_acquire();
        if (((first_version | version) & 1) == 0 &&
            buckets.first->version.load(std::memory_order_relaxed) == first_version &&
            buckets.second->version.load(std::memory_order_relaxed) == version) {
          return false;
        }
      }
    }
  }

  using Memory = std::unique_ptr<void, GiveBack>;
  Readers<Memory>& readers() const noexcept { return readers_; }

 private:
  // The sizes of a segment. A directory entry carries their position in its low bits, beside the address.
  static constexpr std::array<std::uint32_t, 10> kBucketCounts{16, 32, 64, 128, 256, 512, 1024, 1280, 1536, 1792};
  static constexpr std::uint64_t kCodeMask = 63;
  static constexpr unsigned kCodeAfterSplit = 6;

  struct Segment {
    Memory memory;
    unsigned code = 0;   // Position in kBucketCounts.
    unsigned depth = 0;  // How many top bits of the hash its FIDs share.
    std::uint32_t size = 0;
    std::uint32_t size_max = 0;  // At which it grows.
    Bucket* buckets() const noexcept { return static_cast<Bucket*>(memory.get()); }
    std::uint32_t bucket_count() const noexcept { return kBucketCounts[code]; }
    std::uint64_t entry() const noexcept { return reinterpret_cast<std::uint64_t>(memory.get()) | code; }
  };

  struct Directory {
    unsigned depth = 0;
    std::atomic<std::uint64_t>* entries = nullptr;  // 2^depth.
    std::size_t position(std::uint64_t hash) const noexcept {
      return static_cast<std::size_t>((hash >> 1) >> (63 - depth));
    }
    std::atomic<std::uint64_t>& entry(std::uint64_t hash) const noexcept { return entries[position(hash)]; }
  };

  DOLMEN_INLINE Choice choice(std::int64_t fid, const Directory& directory) const noexcept {
    const std::uint64_t hash = hash_of(fid);
    const std::uint64_t entry = directory.entry(hash).load(std::memory_order_acquire);
    const std::uint64_t count = kBucketCounts[entry & kCodeMask];
    auto* buckets = reinterpret_cast<Bucket*>(entry & ~kCodeMask);
    return {buckets + first_of(hash, count), buckets + second_of(hash, count)};
  }

  template <typename Processor>
  DOLMEN_INLINE static bool look(Processor processor, Finding& found, std::int64_t fid) noexcept {
    found.version = found.bucket->version.load(std::memory_order_acquire);
    const unsigned lane = dolmen::lane_of(processor, *found.bucket, fid);
    if (lane == Bucket::kLanes) return false;
    found.row = found.bucket->row(lane);
    return true;
  }

  std::uint64_t hash_of(std::int64_t fid) const noexcept { return mix64(static_cast<std::uint64_t>(fid) ^ hash_seed_); }
  static std::uint64_t first_of(std::uint64_t hash, std::uint64_t bucket_count) noexcept {
    return ((hash & 0xFFFFFFFFU) * bucket_count) >> 32;
  }
  static std::uint64_t second_of(std::uint64_t hash, std::uint64_t bucket_count) noexcept {
    return (((hash * kGolden) >> 32) * bucket_count) >> 32;
  }

  Segment make_segment(unsigned code, unsigned depth);
  static Memory make_directory(unsigned depth);
  Place place_in(Segment& segment, std::uint64_t hash, std::int64_t fid, std::uint32_t row) noexcept;
  Bucket* make_room(Segment& segment, std::uint64_t hash) noexcept;
  bool refill(const Segment& from, std::span<Segment> to) noexcept;
  void grow(std::size_t position);
  void abandon(Segment& segment);
  void deepen();
  void publish(std::shared_ptr<Segment> segment, std::uint64_t hash);

  std::uint64_t hash_seed_;
  PieceArena arena_;
  std::atomic<std::size_t> size_{0};
  std::size_t bucket_count_ = 0;
  std::uint64_t moved_count_ = 0;
  std::uint64_t made_count_ = 0;  // Of segments.
  std::atomic<const Directory*> directory_{nullptr};
  Memory directory_memory_;
  std::vector<std::shared_ptr<Segment>> segments_;  // By directory position; neighbours may share one.
  std::vector<std::uint64_t> visited_;              // Search scratch: the search that last saw a bucket.
  std::uint64_t search_ = 0;
  mutable Readers<Memory> readers_;
};

}  // namespace dolmen
