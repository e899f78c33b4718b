#include "admission.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "hash.hpp"

namespace dolmen {
namespace {

Mapping zeros(std::size_t size) {
  return Mapping(size, size >= kHugePage);
}

std::uint64_t hash_of(std::int64_t fid, std::uint64_t seed) noexcept {
  return mix64(static_cast<std::uint64_t>(fid) ^ seed);
}

// The hash's high bits as a number below `size`.
std::uint64_t scaled(std::uint64_t hash, std::uint64_t size) noexcept {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(hash) * size) >> 64);
}

// State as bytes: whole numbers first, then memory as it is.
class StateWriter {
 public:
  void add(std::uint64_t value) { add(&value, sizeof(value)); }
  void add(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    bytes_.insert(bytes_.end(), bytes, bytes + size);
  }
  std::vector<std::uint8_t> taken() { return std::move(bytes_); }

 private:
  std::vector<std::uint8_t> bytes_;
};

class StateReader {
 public:
  explicit StateReader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  std::uint64_t number() {
    std::uint64_t value = 0;
    copy(&value, sizeof(value));
    return value;
  }
  void copy(void* to, std::size_t size) {
    std::memcpy(to, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

}  // namespace

// ------------------------------------------------------------------------------------------------------------- exact

ExactCounts::ExactCounts(const AdmissionOptions& options, std::uint64_t hash_seed)
    : admit_after_(options.admit_after),
      capacity_(std::max(options.capacity, 1U)),
      hash_seed_(hash_seed),
      mask_(std::bit_ceil(2 * std::uint64_t{capacity_}) - 1),
      // One more than may stay: the newest is put in before the oldest leaves.
      entry_memory_((std::size_t{capacity_} + 1) * sizeof(Entry), false),
      place_memory_((mask_ + 1) * sizeof(std::uint32_t), false),
      entries_(reinterpret_cast<Entry*>(entry_memory_.data())),
      places_(reinterpret_cast<std::uint32_t*>(place_memory_.data())) {}

Sights ExactCounts::see(std::int64_t fid, std::int64_t now_us) {
  std::uint32_t* place = place_of(fid);
  const bool is_known = *place != kNone;
  const std::int64_t count = is_known ? entry(*place).count + 1 : 1;
  const std::int64_t last_us = is_known ? std::max(entry(*place).last_us, now_us) : now_us;
  if (count >= admit_after_) {
    if (is_known) remove(place);
    return {count, last_us};
  }
  restore({fid, count, last_us});
  return {0, 0};
}

void ExactCounts::restore(const PendingFid& pending) {
  std::uint32_t number = *place_of(pending.fid);
  if (number == kNone) {
    number = add(pending.fid);
  } else {
    unlink(entry(number));
  }
  entry(number).count = pending.count;
  entry(number).last_us = pending.last_seen_us;
  link_newest(number);
  if (count_ > capacity_) remove(place_of(entry(oldest_).fid));
}

void ExactCounts::erase(std::int64_t fid) noexcept {
  if (std::uint32_t* place = place_of(fid); *place != kNone) remove(place);
}

std::size_t ExactCounts::expire(std::int64_t now_us, std::int64_t after_us, std::size_t count_max) noexcept {
  std::size_t count = 0;
  for (; count < count_max && oldest_ != kNone && now_us - entry(oldest_).last_us >= after_us; ++count) {
    remove(place_of(entry(oldest_).fid));
  }
  return count;
}

void ExactCounts::copy_to(std::vector<PendingFid>& all) const {
  for (std::uint32_t number = oldest_; number != kNone; number = entry(number).newer) {
    all.push_back({entry(number).fid, entry(number).count, entry(number).last_us});
  }
}

std::size_t ExactCounts::memory_size() const noexcept {
  // Of the places, at most a page is in use for each entry.
  return used_end_ * sizeof(Entry) + std::min(place_memory_.size(), used_end_ * kPage);
}

std::uint32_t* ExactCounts::place_of(std::int64_t fid) const noexcept {
  std::uint64_t at = hash_of(fid, hash_seed_) & mask_;
  while (places_[at] != kNone && entry(places_[at]).fid != fid) at = (at + 1) & mask_;
  return &places_[at];
}

std::uint32_t ExactCounts::add(std::int64_t fid) {
  std::uint32_t number = free_;
  if (number == kNone) {
    number = ++used_end_;
  } else {
    free_ = entry(number).newer;
  }
  entry(number).fid = fid;
  *place_of(fid) = number;
  count_ += 1;
  return number;
}

void ExactCounts::remove(std::uint32_t* place) noexcept {
  const std::uint32_t number = *place;
  unlink(entry(number));
  entry(number).newer = free_;
  free_ = number;
  count_ -= 1;
  // Whatever was pushed past the hole by it moves into it, so that every search still ends at the first empty place.
  auto hole = static_cast<std::uint64_t>(place - places_);
  for (std::uint64_t at = (hole + 1) & mask_; places_[at] != kNone; at = (at + 1) & mask_) {
    const std::uint64_t wanted = hash_of(entry(places_[at]).fid, hash_seed_) & mask_;
    if (((at - wanted) & mask_) >= ((at - hole) & mask_)) {
      places_[hole] = places_[at];
      hole = at;
    }
  }
  places_[hole] = kNone;
}

void ExactCounts::unlink(const Entry& each) noexcept {
  (each.older == kNone ? oldest_ : entry(each.older).newer) = each.newer;
  (each.newer == kNone ? newest_ : entry(each.newer).older) = each.older;
}

void ExactCounts::link_newest(std::uint32_t number) noexcept {
  entry(number).older = newest_;
  entry(number).newer = kNone;
  (newest_ == kNone ? oldest_ : entry(newest_).newer) = number;
  newest_ = number;
}

// ------------------------------------------------------------------------------------------------------------ sketch

SlidingSketch::SlidingSketch(const AdmissionOptions& options, std::uint64_t seed)
    : admit_after_(options.admit_after),
      seed_(seed),
      split_capacity_(std::max<std::uint64_t>(options.capacity / (kSplitCount - kForward + 1), 1)),
      split_size_(split_capacity_ + split_capacity_ / 5 + kStepMax) {  // Five sixths full at most; no search wraps.
  for (Split& split : splits_) split.memory = zeros(split_size_ * sizeof(Cell));
}

SlidingSketch::Cell* SlidingSketch::find(const Split& split, std::uint64_t hash) const noexcept {
  Cell* cell = split.cells() + scaled(hash, split_size_ - kStepMax);
  const auto signature = static_cast<Cell>(hash & (0xFFFFU >> kCountBits));
  for (std::size_t step = 0; step < kStepMax; ++step, ++cell) {
    if (*cell == 0 || *cell >> kCountBits == signature) return cell;
  }
  return nullptr;
}

Sights SlidingSketch::see(std::int64_t fid, std::int64_t now_us) {
  const std::uint64_t hash = hash_of(fid, seed_);
  Cell* cell = nullptr;
  Split* split = nullptr;
  for (std::size_t ahead = 0; ahead < kForward && cell == nullptr; ++ahead) {
    split = &splits_[(head_ + ahead) % kSplitCount];
    cell = find(*split, hash);
  }
  if (cell == nullptr) {
    failure_count_ += 1;
    return {admit_after_, now_us};
  }
  std::int64_t before = *cell & kCountMax;
  if (*cell != 0) {
    if (before < kCountMax) *cell = static_cast<Cell>(*cell + 1);
  } else {
    const std::uint64_t behind_max = std::min<std::uint64_t>(advance_count_, kSplitCount - kForward);
    for (std::uint64_t behind = 1; behind <= behind_max; ++behind) {
      const Cell* old = find(splits_[(head_ + kSplitCount - behind) % kSplitCount], hash);
      if (old == nullptr || *old == 0) continue;
      before = *old & kCountMax;
      break;
    }
    const auto count = static_cast<unsigned>(std::min<std::int64_t>(before + 1, kCountMax));
    *cell = static_cast<Cell>((hash & (0xFFFFU >> kCountBits)) << kCountBits | count);
    split->used_count += 1;
    if (splits_[head_].used_count >= split_capacity_) advance();
  }
  return before + 1 >= admit_after_ ? Sights{before + 1, now_us} : Sights{0, 0};
}

void SlidingSketch::advance() {
  Mapping empty = zeros(split_size_ * sizeof(Cell));
  head_ = (head_ + 1) % kSplitCount;
  advance_count_ += 1;
  Split& ahead = splits_[(head_ + kForward - 1) % kSplitCount];
  ahead.memory = std::move(empty);  // Cheaper than writing zeros, and no batch waits for it.
  ahead.used_count = 0;
}

std::vector<std::uint8_t> SlidingSketch::state() const {
  StateWriter writer;
  for (const std::uint64_t number : {head_, advance_count_, failure_count_}) writer.add(number);
  for (const Split& split : splits_) writer.add(split.used_count);
  for (const Split& split : splits_) writer.add(split.cells(), split_size_ * sizeof(Cell));
  return writer.taken();
}

bool SlidingSketch::restore(std::span<const std::uint8_t> state) {
  if (state.size() != (3 + kSplitCount) * sizeof(std::uint64_t) + memory_size()) return false;
  StateReader reader(state);
  const std::uint64_t head = reader.number();
  if (head >= kSplitCount) return false;
  head_ = head;
  advance_count_ = reader.number();
  failure_count_ = reader.number();
  for (Split& split : splits_) split.used_count = reader.number();
  for (Split& split : splits_) reader.copy(split.cells(), split_size_ * sizeof(Cell));
  return true;
}

// ------------------------------------------------------------------------------------------------------------- Bloom

CountingBloom::CountingBloom(const AdmissionOptions& options, std::uint64_t seed)
    : admit_after_(options.admit_after),
      seed_(seed),
      bits_(options.admit_after <= 2   ? 1
            : options.admit_after <= 4 ? 2
                                       : 4),
      generation_capacity_(std::max<std::uint64_t>(options.capacity / 2, 1)),
      counter_count_(generation_capacity_ * kCountersPerFid),
      byte_count_(counter_count_ * bits_ / 8 + 1),
      newer_(zeros(byte_count_)),
      older_(zeros(byte_count_)) {}

unsigned CountingBloom::counter(const Mapping& generation, std::uint64_t at) const noexcept {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(generation.data());
  return bytes[at * bits_ / 8] >> (at * bits_ % 8) & ((1U << bits_) - 1);
}

void CountingBloom::raise(std::uint64_t at, unsigned to) noexcept {
  auto& byte = reinterpret_cast<std::uint8_t*>(newer_.data())[at * bits_ / 8];
  const auto shift = static_cast<unsigned>(at * bits_ % 8);
  const unsigned mask = (1U << bits_) - 1;
  if ((byte >> shift & mask) < to) byte = static_cast<std::uint8_t>((byte & ~(mask << shift)) | to << shift);
}

Sights CountingBloom::see(std::int64_t fid, std::int64_t now_us) {
  std::array<std::uint64_t, kHashCount> places;
  std::uint64_t hash = hash_of(fid, seed_);
  unsigned before = ~0U;
  unsigned before_older = ~0U;
  for (std::uint64_t& place : places) {
    place = scaled(hash, counter_count_);
    before = std::min(before, counter(newer_, place));
    before_older = std::min(before_older, counter(older_, place));
    hash = mix64(hash + kGolden);
  }
  const bool is_new = before == 0;
  before = std::max(before, before_older);  // Strangers may have raised the newer counters, its own sights stay older.
  const std::int64_t count = std::int64_t{before} + 1;
  if (count >= admit_after_) return {count, now_us};
  for (const std::uint64_t place : places) raise(place, before + 1);
  if (is_new && ++newer_count_ >= generation_capacity_) {
    Mapping empty = zeros(byte_count_);
    older_ = std::move(newer_);
    newer_ = std::move(empty);
    newer_count_ = 0;
  }
  return {0, 0};
}

std::vector<std::uint8_t> CountingBloom::state() const {
  StateWriter writer;
  writer.add(newer_count_);
  writer.add(newer_.data(), byte_count_);
  writer.add(older_.data(), byte_count_);
  return writer.taken();
}

bool CountingBloom::restore(std::span<const std::uint8_t> state) {
  if (state.size() != sizeof(std::uint64_t) + 2 * byte_count_) return false;
  StateReader reader(state);
  newer_count_ = reader.number();
  reader.copy(newer_.data(), byte_count_);
  reader.copy(older_.data(), byte_count_);
  return true;
}

// ------------------------------------------------------------------------------------------------------------ chance

Chance::Chance(const AdmissionOptions& options, std::uint64_t seed)
    : kind_(options.kind), admit_after_(static_cast<double>(options.admit_after)), seed_(seed) {}

double Chance::chance(std::uint32_t sight) const noexcept {
  const double share = static_cast<double>(sight) / admit_after_;
  return kind_ == AdmissionKind::kProportional ? share : 1.0 - std::pow(0.05, share);
}

Sights Chance::see(std::int64_t fid, std::int64_t now_us, std::uint64_t batch) {
  if (batch != batch_) {
    batch_ = batch;
    sights_.clear();
  }
  const auto found = sights_.find(fid);
  const std::uint32_t sight = found == sights_.end() ? 1 : found->second + 1;
  // One draw for all sights in the batch: the chance grows with each, so the first that it reaches admits.
  const double draw = static_cast<double>(mix64(hash_of(fid, seed_) + batch * kGolden) >> 11) * 0x1p-53;
  if (draw < chance(sight)) {
    if (found != sights_.end()) sights_.erase(found);
    return {1, now_us};
  }
  sights_[fid] = sight;
  return {0, 0};
}

Admission make_admission(const AdmissionOptions& options, std::uint64_t seed, std::uint64_t hash_seed) {
  switch (options.kind) {
    case AdmissionKind::kSketch:
      return SlidingSketch(options, seed);
    case AdmissionKind::kBloom:
      return CountingBloom(options, seed);
    case AdmissionKind::kProbabilistic:
    case AdmissionKind::kProportional:
      return Chance(options, seed);
    default:
      return ExactCounts(options, hash_seed);
  }
}

}  // namespace dolmen
