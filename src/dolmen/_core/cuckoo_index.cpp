#include "cuckoo_index.hpp"

#include <cstdlib>
#include <new>

namespace dolmen {
namespace {

// Beyond the upper load the search for room gets long; below it, it hardly ever fails. Segments grow at loads between
// the two: since a uniform hash fills all alike, they would otherwise all grow at the same time.
constexpr double kLoadMin = 0.905;
constexpr double kLoadMax = 0.93;
constexpr std::size_t kSearchMax = 512;

CuckooIndex::Memory from_heap(std::size_t size) {
  void* memory = std::aligned_alloc(alignof(Bucket), rounded_up(size, alignof(Bucket)));
  if (memory == nullptr) throw std::bad_alloc();
  return CuckooIndex::Memory(memory);
}

unsigned free_lane(const Bucket& bucket) noexcept {
  return bucket.lane_of(Bucket::kFree);
}

void write_lane(Bucket& bucket, unsigned lane, std::int64_t fid, std::uint32_t row) noexcept {
  const Change change(bucket.version);
  bucket.rows[lane].store(row, std::memory_order_relaxed);
  bucket.fids[lane].store(fid, std::memory_order_relaxed);
}

}  // namespace

void GiveBack::operator()(void* memory) const noexcept {
  if (arena == nullptr) {
    std::free(memory);
  } else {
    arena->free(static_cast<std::byte*>(memory), size);
  }
}

CuckooIndex::CuckooIndex(std::uint64_t hash_seed)
    : hash_seed_(mix64(hash_seed + kGolden)), visited_(kBucketCounts.back(), 0) {
  directory_memory_ = make_directory(0);
  segments_.push_back(std::make_shared<Segment>(make_segment(0, 0)));
  auto* directory = static_cast<Directory*>(directory_memory_.get());
  directory->entries[0].store(segments_[0]->entry());
  directory_.store(directory);
  bucket_count_ = segments_[0]->bucket_count();
}

CuckooIndex::~CuckooIndex() = default;

std::size_t CuckooIndex::memory_size() const noexcept {
  const std::size_t first_size = segments_[0]->bucket_count() * sizeof(Bucket);
  return arena_.memory_size() + (first_size % PieceArena::kUnit != 0 ? first_size : 0) +
         segments_.size() * (sizeof(std::uint64_t) + sizeof(std::shared_ptr<Segment>)) +
         visited_.size() * sizeof(std::uint64_t);
}

CuckooIndex::Segment CuckooIndex::make_segment(unsigned code, unsigned depth) {
  const std::size_t count = kBucketCounts[code];
  const std::size_t size = count * sizeof(Bucket);
  const bool is_small = size % PieceArena::kUnit != 0;
  Segment segment{is_small ? from_heap(size) : Memory(arena_.allocate(size), GiveBack{&arena_, size}), code, depth};
  const double share = static_cast<double>(mix64(++made_count_) >> 11) * 0x1p-53;
  segment.size_max = static_cast<std::uint32_t>(static_cast<double>(count * Bucket::kLanes) *
                                                (kLoadMin + share * (kLoadMax - kLoadMin)));
  std::uninitialized_default_construct_n(segment.buckets(), count);
  return segment;
}

CuckooIndex::Memory CuckooIndex::make_directory(unsigned depth) {
  const std::size_t count = std::size_t{1} << depth;
  Memory memory = from_heap(sizeof(Directory) + count * sizeof(std::uint64_t));
  auto* entries = reinterpret_cast<std::atomic<std::uint64_t>*>(static_cast<Directory*>(memory.get()) + 1);
  std::uninitialized_value_construct_n(entries, count);
  new (memory.get()) Directory{depth, entries};
  return memory;
}

CuckooIndex::Place CuckooIndex::insert(std::int64_t fid, std::uint32_t row) {
  const std::uint64_t hash = hash_of(fid);
  for (;;) {
    const std::size_t position = directory_.load(std::memory_order_relaxed)->position(hash);
    Segment& segment = *segments_[position];
    if (segment.size < segment.size_max) {
      if (const Place place = place_in(segment, hash, fid, row)) {
        size_.fetch_add(1, std::memory_order_relaxed);
        return place;
      }
    }
    grow(position);
  }
}

void CuckooIndex::erase(Place place) noexcept {
  const std::int64_t fid = place.bucket->fids[place.lane].load(std::memory_order_relaxed);
  write_lane(*place.bucket, place.lane, Bucket::kFree, 0);
  segments_[directory_.load(std::memory_order_relaxed)->position(hash_of(fid))]->size -= 1;
  size_.fetch_sub(1, std::memory_order_relaxed);
}

CuckooIndex::Place CuckooIndex::place_in(Segment& segment, std::uint64_t hash, std::int64_t fid,
                                         std::uint32_t row) noexcept {
  Bucket* bucket = segment.buckets() + first_of(hash, segment.bucket_count());
  if (free_lane(*bucket) == Bucket::kLanes) {
    bucket = segment.buckets() + second_of(hash, segment.bucket_count());
    if (free_lane(*bucket) == Bucket::kLanes) {
      bucket = make_room(segment, hash);
      if (bucket == nullptr) return {};
    }
  }
  const unsigned lane = free_lane(*bucket);
  write_lane(*bucket, lane, fid, row);
  segment.size += 1;
  return {bucket, lane};
}

// Both buckets are full: find, breadth first, the shortest chain of FIDs that can each step to their other bucket, the
// last one to a free lane; then move them, last first. A moving FID is for an instant in both of its buckets, never in
// none. Returns the bucket that has room now.
Bucket* CuckooIndex::make_room(Segment& segment, std::uint64_t hash) noexcept {
  struct Step {
    std::uint32_t bucket;
    std::int32_t parent;  // The step whose FID moves here...
    std::uint32_t lane;   // ...from this lane of that step's bucket.
  };
  std::array<Step, kSearchMax> steps;
  Bucket* buckets = segment.buckets();
  const std::uint64_t bucket_count = segment.bucket_count();
  std::size_t step_count = 0;
  search_ += 1;
  const auto push = [&](std::uint64_t bucket, std::int32_t parent, std::uint32_t lane) {
    if (visited_[bucket] == search_ || step_count == kSearchMax) return;
    visited_[bucket] = search_;
    __builtin_prefetch(buckets + bucket);
    steps[step_count++] = {static_cast<std::uint32_t>(bucket), parent, lane};
  };
  push(first_of(hash, bucket_count), -1, 0);
  push(second_of(hash, bucket_count), -1, 0);
  for (std::size_t i = 0; i < step_count; ++i) {
    Bucket& bucket = buckets[steps[i].bucket];
    if (unsigned lane = free_lane(bucket); lane < Bucket::kLanes) {
      Bucket* room = &bucket;
      for (std::size_t at = i; steps[at].parent >= 0; at = static_cast<std::size_t>(steps[at].parent)) {
        Bucket* from = buckets + steps[static_cast<std::size_t>(steps[at].parent)].bucket;
        const unsigned from_lane = steps[at].lane;
        write_lane(*room, lane, from->fids[from_lane].load(std::memory_order_relaxed), from->row(from_lane));
        write_lane(*from, from_lane, Bucket::kFree, 0);
        room = from;
        lane = from_lane;
      }
      return room;
    }
    for (unsigned lane = 0; lane < Bucket::kLanes; ++lane) {
      const std::uint64_t other = hash_of(bucket.fids[lane].load(std::memory_order_relaxed));
      const std::uint64_t first = first_of(other, bucket_count);
      push(first == steps[i].bucket ? second_of(other, bucket_count) : first, static_cast<std::int32_t>(i), lane);
    }
  }
  return nullptr;
}

// Copies all of `from` into one segment, or into two by the next bit of the hash. False if one ran out of room.
bool CuckooIndex::refill(const Segment& from, std::span<Segment> to) noexcept {
  for (std::uint32_t i = 0; i < from.bucket_count(); ++i) {
    const Bucket& bucket = from.buckets()[i];
    for (unsigned lane = 0; lane < Bucket::kLanes; ++lane) {
      const std::int64_t fid = bucket.fids[lane].load(std::memory_order_relaxed);
      if (fid == Bucket::kFree) continue;
      const std::uint64_t hash = hash_of(fid);
      const std::size_t half = to.size() == 1 ? 0 : (hash >> (63 - from.depth)) & 1;
      if (!place_in(to[half], hash, fid, bucket.row(lane))) return false;
    }
  }
  return true;
}

void CuckooIndex::grow(std::size_t position) {
  const std::shared_ptr<Segment> old = segments_[position];
  // The top bits that all of its FIDs share, then zeros.
  const std::uint64_t top = std::uint64_t{position} >> (directory_.load()->depth - old->depth);
  const std::uint64_t hash = top << 1 << (63 - old->depth);
  std::array<Segment, 2> built;
  bool is_split = false;
  unsigned code = old->code + 1;
  for (bool is_full = true; is_full; ++code) {
    is_split = code >= kBucketCounts.size();
    if (!is_split) {
      built[0] = make_segment(code, old->depth);
      is_full = !refill(*old, std::span(built).first(1));
    } else {
      // A half that runs out of room (chosen FIDs) is built larger; past the largest size it would have to be split
      // again, which the seeded hash makes as likely as guessing the seed.
      const unsigned half_code = kCodeAfterSplit + (code - static_cast<unsigned>(kBucketCounts.size()));
      if (half_code >= kBucketCounts.size()) throw std::bad_alloc();
      built[0] = make_segment(half_code, old->depth + 1);
      built[1] = make_segment(half_code, old->depth + 1);
      is_full = !refill(*old, built);
    }
  }
  readers_.make_room();
  auto lower = std::make_shared<Segment>(std::move(built[0]));
  auto upper = is_split ? std::make_shared<Segment>(std::move(built[1])) : nullptr;
  if (is_split && old->depth == directory_.load()->depth) deepen();  // From here on nothing throws.
  moved_count_ += old->size;
  bucket_count_ += lower->bucket_count() + (upper ? upper->bucket_count() : 0) - old->bucket_count();
  publish(std::move(lower), hash);
  if (upper) publish(std::move(upper), hash | std::uint64_t{1} << (63 - old->depth));
  abandon(*old);
}

// A reader may still hold one of its buckets: an odd stamp for ever sends it back to the directory.
void CuckooIndex::abandon(Segment& segment) {
  for (std::uint32_t i = 0; i < segment.bucket_count(); ++i) {
    std::atomic<std::uint32_t>& version = segment.buckets()[i].version;
    version.store(version.load(std::memory_order_relaxed) | 1, std::memory_order_relaxed);
  }
  fence_release();
  readers_.retire(std::move(segment.memory));
}

void CuckooIndex::reserve(std::size_t row_count) {
  if (segments_.size() > 1 || segments_[0]->size > 0) return;
  // A uniform hash fills segments alike, but not evenly; one that fills up first grows by itself.
  const auto wanted = static_cast<std::size_t>(static_cast<double>(row_count) / (Bucket::kLanes * kLoadMin * 0.97));
  unsigned depth = 0;
  while ((std::size_t{kBucketCounts.back()} << depth) < wanted) ++depth;
  unsigned code = 0;
  while ((std::size_t{kBucketCounts[code]} << depth) < wanted) ++code;
  Memory memory = make_directory(depth);
  auto* directory = static_cast<Directory*>(memory.get());
  std::vector<std::shared_ptr<Segment>> segments;
  for (std::size_t i = 0; i < std::size_t{1} << depth; ++i) {
    segments.push_back(std::make_shared<Segment>(make_segment(code, depth)));
    directory->entries[i].store(segments[i]->entry(), std::memory_order_relaxed);
  }
  readers_.make_room();  // From here on nothing throws.
  segments_.swap(segments);
  bucket_count_ = std::size_t{kBucketCounts[code]} << depth;
  directory_.store(directory, std::memory_order_release);
  directory_memory_.swap(memory);
  readers_.retire(std::move(memory));
  abandon(*segments[0]);
}

// Sets the segment at every directory position whose top bits are those of `hash`.
void CuckooIndex::publish(std::shared_ptr<Segment> segment, std::uint64_t hash) {
  const Directory* directory = directory_.load(std::memory_order_relaxed);
  const std::size_t span = std::size_t{1} << (directory->depth - segment->depth);
  const std::size_t begin = directory->position(hash) / span * span;
  for (std::size_t i = begin; i < begin + span; ++i) {
    segments_[i] = segment;
    directory->entries[i].store(segment->entry(), std::memory_order_release);
  }
}

void CuckooIndex::deepen() {
  const Directory* old = directory_.load(std::memory_order_relaxed);
  Memory memory = make_directory(old->depth + 1);
  auto* directory = static_cast<Directory*>(memory.get());
  std::vector<std::shared_ptr<Segment>> segments(segments_.size() * 2);
  for (std::size_t i = 0; i < segments.size(); ++i) {
    segments[i] = segments_[i / 2];
    directory->entries[i].store(segments[i]->entry(), std::memory_order_relaxed);
  }
  segments_.swap(segments);
  directory_.store(directory, std::memory_order_release);
  directory_memory_.swap(memory);
  readers_.retire(std::move(memory));
}

}  // namespace dolmen
