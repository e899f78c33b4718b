#include "table.hpp"

#include <algorithm>
#include <bit>

#include "in_parallel.hpp"

namespace dolmen {
namespace {

constexpr std::size_t kAhead = 24;  // So many FIDs are on their way from memory at once.
constexpr std::size_t kStretch = 1024;
constexpr std::size_t kStepBlock = 16;   // So many rows a choice of optimiser.
constexpr std::size_t kLeaveBlock = 32;  // So many rows leave together.
constexpr std::size_t kLine = 64;

DOLMEN_INLINE std::byte* prefetched(std::byte* begin, std::size_t size) noexcept {
  for (std::size_t offset = 0; offset < size; offset += kLine) __builtin_prefetch(begin + offset);
  if (size % (kLine / 2) != 0) __builtin_prefetch(begin + size - 1);  // Such rows may lie across a line's end.
  return begin;
}

// A row's count and some more sights: at most kCountMax.
std::uint32_t counted(std::uint32_t count, std::int64_t more) noexcept {
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(more, 0, kCountMax - count)) + count;
}

// Calls `work(dim)` with the usual widths as constants of the type, so that loops over a row need no counting.
template <typename Work>
DOLMEN_INLINE void with_dim(std::uint32_t dim, const Work& work) {
#ifndef DOLMEN_SANITIZED  // Sanitizers make these slow to build, and check the same lines in the last.
  switch (dim) {
    case 8:
      return work(std::integral_constant<std::size_t, 8>());
    case 16:
      return work(std::integral_constant<std::size_t, 16>());
    case 32:
      return work(std::integral_constant<std::size_t, 32>());
    case 64:
      return work(std::integral_constant<std::size_t, 64>());
    case 128:
      return work(std::integral_constant<std::size_t, 128>());
    default:
      break;
  }
#endif
  work(std::size_t{dim});
}

// Calls `work(stored, dim)`, with the usual widths as constants where they gain most.
template <typename Work>
DOLMEN_INLINE void with_row(const RowStore& rows, const Work& work) {
  with_precision(rows.precision(), [&](auto stored) DOLMEN_INLINED {
    if constexpr (std::is_same_v<decltype(stored), Float32>) {
      with_dim(rows.dim(), [&](auto dim) DOLMEN_INLINED { work(stored, dim); });
    } else {
      work(stored, std::size_t{rows.dim()});
    }
  });
}

}  // namespace

Table::Table(const TableOptions& options, Optimizer optimizer)
    : index_(options.hash_seed),
      rows_(options.dim, std::visit([&](const auto& o) { return o.state_dim(options.dim); }, optimizer),
            options.precision),
      optimizer_(std::move(optimizer)),
      clip_(options.clip),
      gradient_sum_max_(dolmen::gradient_sum_max(optimizer_, clip_)),
      seed_(options.seed),
      hash_seed_(options.hash_seed),
      start_values_(options.seed, options.initial_range),
      start_(options.dim) {
  set_thread_count(1);
}

// ---------------------------------------------------------------------------------------------------------- reading

// Apart from the loop over a batch, which it would slow down: few FIDs come here.
template <typename Copy, typename Absent>
[[gnu::noinline, gnu::cold]] void Table::read_again(std::int64_t fid, const Copy& copy,
                                                    const Absent& absent) const noexcept {
  if (!index_.read(fid, copy)) absent();
}

// Calls `copy(i, memory)` with what `fetch(row)` gave, for each FID that is present (again if the row changed
// meanwhile), and `absent(i)` for the others, with buckets and rows on their way from memory before they are used.
template <typename Processor, typename Fetch, typename Copy, typename Absent>
DOLMEN_INLINE void Table::read_each(Processor processor, std::span<const std::int64_t> fids, const Fetch& fetch,
                                    const Copy& copy, const Absent& absent) const noexcept {
  const Readers<CuckooIndex::Memory>::Visit visit(index_.readers());
  index_.find_each(processor, fids, fetch, [&](std::size_t i, const CuckooIndex::Finding& found) DOLMEN_INLINED {
    if (found.bucket != nullptr) [[likely]] {
      copy(i, found.memory);
      if (CuckooIndex::is_current(found)) [[likely]]
        return;
    }
    read_again(fids[i], [&](std::uint32_t row) { copy(i, fetch(row)); }, [&] { absent(i); });
  });
}

template <typename Processor>
DOLMEN_INLINE void Table::lookup_by(Processor processor, std::span<const std::int64_t> fids,
                                    std::span<float> out) const noexcept {
  with_row(rows_, [&](auto stored, auto dim) DOLMEN_INLINED {
    const RowStore::Vectors vectors = rows_.vectors();
    float* const begin = out.data();
    read_each(
        processor, fids,
        [vectors, stored, dim](std::uint32_t row) DOLMEN_INLINED { return prefetched(vectors[row], stored.size(dim)); },
        [processor, stored, begin, dim](std::size_t i, const std::byte* memory)
            DOLMEN_INLINED { stored.read(processor, begin + i * dim, memory, dim); },
        [&](std::size_t i) { read_absent(fids[i], out.subspan(i * dim, dim)); });
  });
}

void Table::lookup(std::span<const std::int64_t> fids, std::span<float> out) const noexcept {
  const std::size_t share_count = share_count_of(fids.size(), thread_count());
  in_parallel(share_count, [&](std::size_t share) {
    const auto [begin, count] = stretch_of(fids.size(), share, share_count);
    const auto my_fids = fids.subspan(begin, count);
    const auto my_out = out.subspan(begin * dim(), count * dim());
    with_processor([&](auto processor) DOLMEN_INLINED { lookup_by(processor, my_fids, my_out); });
  });
}

void Table::set_thread_count(std::size_t count) {
  const std::lock_guard lock(writing_);
  while (shares_.size() > count) shares_.pop_back();
  while (shares_.size() < count) shares_.emplace_back(hash_seed_);
  thread_count_.store(count, std::memory_order_relaxed);
}

void Table::read_absent(std::int64_t fid, std::span<float> out) const noexcept {
  if (rules_[slot_of(fid)].absent_reads_start) {
    start_values_.fill(fid, out);
  } else {
    std::fill(out.begin(), out.end(), 0.0F);
  }
}

void Table::contains(std::span<const std::int64_t> fids, std::span<bool> out) const noexcept {
  read_each(
      Portable(), fids, [](std::uint32_t) -> std::byte* { return nullptr; },
      [&](std::size_t i, const std::byte*) { out[i] = true; }, [&](std::size_t i) { out[i] = false; });
}

void Table::counts(std::span<const std::int64_t> fids, std::span<std::int64_t> out) const noexcept {
  read_facts(fids, out, &RowFacts::count, 0);
}

void Table::last_seen(std::span<const std::int64_t> fids, std::span<std::int64_t> out) const noexcept {
  read_facts(fids, out, &RowFacts::last_seen_us, kNeverSeen);
}

template <typename Fact>
void Table::read_facts(std::span<const std::int64_t> fids, std::span<std::int64_t> out,
                       std::atomic<Fact> RowFacts::* fact, std::int64_t absent) const noexcept {
  read_each(
      Portable(), fids,
      [&](std::uint32_t row) { return prefetched(reinterpret_cast<std::byte*>(&rows_.facts(row)), sizeof(RowFacts)); },
      [&](std::size_t i, const std::byte* memory) {
        out[i] = (reinterpret_cast<const RowFacts*>(memory)->*fact).load(std::memory_order_relaxed);
      },
      [&](std::size_t i) { out[i] = absent; });
}

// ---------------------------------------------------------------------------------------------------------- writing

// Part of a batch that is being seen. `has_rivals`: other threads see the rest of it.
struct Table::Seeing {
  std::span<const std::int64_t> fids;
  std::int64_t now_us;
  std::span<float> out;
  bool has_rivals = false;
};

// Rows that are there are found in parallel; those that are not may be made, which is done in the order of the batch.
void Table::lookup_or_insert(std::span<const std::int64_t> fids, std::int64_t now_us, std::span<float> out) {
  const std::lock_guard lock(writing_);
  time_seen_max_us_ = std::max(time_seen_max_us_, now_us);
  clocks_.batch_count += 1;
  const std::size_t share_count = share_count_of(fids.size(), thread_count());
  if (share_count == 1) {
    // Between two stretches, the memory that growth has replaced can be used again.
    for (std::size_t begin = 0; begin < fids.size(); begin += kStretch) {
      const std::size_t count = std::min(kStretch, fids.size() - begin);
      see({fids.subspan(begin, count), now_us, out.subspan(begin * dim(), count * dim())}, nullptr);
      index_.readers().collect();
    }
    return;
  }
  const auto part = [&](std::size_t share) {
    const auto [begin, count] = stretch_of(fids.size(), share, share_count);
    return Seeing{fids.subspan(begin, count), now_us, out.subspan(begin * dim(), count * dim()), true};
  };
  for (std::size_t share = 0; share < share_count; ++share) {
    shares_[share].missing.clear();
    shares_[share].missing.reserve(part(share).fids.size());
  }
  in_parallel(share_count, [&](std::size_t share) { see(part(share), &shares_[share].missing); });
  for (std::size_t share = 0; share < share_count; ++share) {
    const Seeing seeing = part(share);
    const std::vector<std::size_t>& missing = shares_[share].missing;
    for (std::size_t i = 0; i < missing.size(); ++i) {
      if (i + kAhead < missing.size()) __builtin_prefetch(index_.choice(seeing.fids[missing[i + kAhead]]).first);
      see_missing(seeing, missing[i]);
      if (i % kStretch == 0) index_.readers().collect();
    }
  }
  index_.readers().collect();
}

// What has no row goes to `missing`, or is dealt with at once where that is null.
template <typename Processor>
DOLMEN_INLINE void Table::see_by(Processor processor, const Seeing& seeing, std::vector<std::size_t>* missing) {
  const RowStore::Vectors vectors = rows_.vectors();
  const std::size_t vector_size = dim() * sizeof(float);
  const auto fetch = [&, vectors](std::uint32_t row) DOLMEN_INLINED {
    prefetched(reinterpret_cast<std::byte*>(&rows_.facts(row)), sizeof(RowFacts));
    return prefetched(vectors[row], vector_size);
  };
  std::uint32_t slot = 0;
  std::int64_t sights = 0;  // Of the slot, not yet in its total, which other threads add to as well.
  const auto add_sights = [&] { std::atomic_ref(totals_[slot].sights).fetch_add(sights, std::memory_order_relaxed); };
  const auto use = [&](std::size_t i, const CuckooIndex::Finding& found) DOLMEN_INLINED {
    // A row that was found keeps its number, whatever else this batch moves.
    if (found.bucket != nullptr) {
      if (slot_of(seeing.fids[i]) != slot) {
        add_sights();
        slot = slot_of(seeing.fids[i]);
        sights = 0;
      }
      sights += see_found(seeing, i, found.row, {1, seeing.now_us});
    } else if (missing != nullptr) {
      missing->push_back(i);
    } else {
      see_missing(seeing, i);
    }
  };
  index_.find_each(processor, seeing.fids, fetch, use);
  add_sights();
}

void Table::see(const Seeing& seeing, std::vector<std::size_t>* missing) {
  with_processor([&](auto processor) DOLMEN_INLINED { see_by(processor, seeing, missing); });
}

// Returns how many sights were counted.
DOLMEN_INLINE std::int64_t Table::see_found(const Seeing& seeing, std::size_t i, std::uint32_t row,
                                            const Sights& sights) noexcept {
  about_to_change(row);
  RowFacts& facts = rows_.facts(row);
  std::int64_t last_us = facts.last_seen_us.load(std::memory_order_relaxed);
  std::uint32_t count = facts.count.load(std::memory_order_relaxed);
  if (seeing.has_rivals) {
    while (!facts.count.compare_exchange_weak(count, counted(count, sights.count), std::memory_order_relaxed)) {
    }
    while (last_us < sights.last_us &&
           !facts.last_seen_us.compare_exchange_weak(last_us, sights.last_us, std::memory_order_relaxed)) {
    }
  } else {
    facts.count.store(counted(count, sights.count), std::memory_order_relaxed);
    facts.last_seen_us.store(std::max(last_us, sights.last_us), std::memory_order_relaxed);
  }
  copy_from_shared(&seeing.out[i * dim()], rows_.vector(row), dim());
  return counted(count, sights.count) - count;
}

void Table::see_missing(const Seeing& seeing, std::size_t i) {
  const std::int64_t fid = seeing.fids[i];
  Sights sights{1, seeing.now_us};
  CuckooIndex::Place place = index_.place_of(fid);  // It may have come earlier in this batch.
  if (!place) {
    sights = sights_to_admit(fid, seeing.now_us);
    if (sights.count == 0) {
      read_absent(fid, seeing.out.subspan(i * dim(), dim()));
      return;
    }
    place = insert_row(fid, seeing.now_us, nullptr);
    touch(place.row());
  }
  totals_[slot_of(fid)].sights += see_found(seeing, i, place.row(), sights);
}

// Counts one sight of an absent FID. Returns all its sights if it has now earned a row, else none.
Sights Table::sights_to_admit(std::int64_t fid, std::int64_t now_us) {
  Admission* admission = admissions_[slot_of(fid)].get();
  if (admission == nullptr) return {1, now_us};
  return std::visit(
      [&](auto& kind) -> Sights {
        if constexpr (std::is_same_v<std::decay_t<decltype(kind)>, Chance>) {
          return kind.see(fid, now_us, clocks_.batch_count);
        } else {
          return kind.see(fid, now_us);
        }
      },
      *admission);
}

ExactCounts* Table::exact_counts(std::uint32_t slot) const noexcept {
  return std::get_if<ExactCounts>(admissions_[slot].get());
}

void Table::forget_pending(std::int64_t fid) noexcept {
  if (ExactCounts* counts = exact_counts(slot_of(fid))) counts->erase(fid);
}

// A row that is about to be stepped, its memory on its way.
struct Table::PendingStep {
  float* vector;
  float* state;
  std::size_t position;  // In the sums.
  std::atomic<std::uint32_t>* version;
  float scale;
};

// A batch of gradients; each share of it takes the FIDs whose hash falls to it, so no row is stepped by two.
struct Table::Stepping {
  std::span<const std::int64_t> fids;
  std::span<const float> gradients;
  float scale;
  std::size_t share_count;
};

template <typename Processor>
DOLMEN_INLINE void Table::step_by(Processor processor, const Stepping& stepping, std::size_t number) {
  Share& share = shares_[number];
  const GradientSums& sums = share.sums;
  const bool has_rivals = stepping.share_count > 1;
  share.sums.group(stepping.fids, stepping.gradients, number, stepping.share_count);
  std::array<PendingStep, kStepBlock> block;
  std::size_t pending_count = 0;
  const std::uint64_t step_count = clocks_.step_count;
  const auto step_block = [&] {
    std::visit(
        [&](const auto& optimizer) {
          Processor::run([&](Processor) DOLMEN_INLINED {
            with_dim(rows_.dim(), [&](auto dim) DOLMEN_INLINED {
              for (std::size_t i = 0; i < pending_count; ++i) {
                const PendingStep& each = block[i];
                const float* gradient = sums.sum(each.position, dim, share.made.data());
                gradient = clip_.apply(gradient, static_cast<std::uint32_t>(dim), share.made.data() + dim);
                const Change change(*each.version, has_rivals);
                optimizer.step(
                    {each.vector, each.state, gradient, static_cast<std::uint32_t>(dim), each.scale, step_count});
              }
            });
          });
        },
        optimizer_);
    share.updated_count += pending_count;
    pending_count = 0;
  };
  const std::size_t vector_size = rows_.vector_stride();
  const std::size_t side_size = sizeof(RowFacts) + (rows_.is_state_beside_vector() ? 0 : state_dim() * sizeof(float));
  const RowStore::Vectors vectors = rows_.vectors();
  const auto fetch = [&, vectors](std::uint32_t row) DOLMEN_INLINED {
    if (side_size > sizeof(RowFacts) || !is_touched(row)) {
      prefetched(reinterpret_cast<std::byte*>(&rows_.facts(row)), side_size);
    }
    return prefetched(vectors[row], vector_size);
  };
  const auto use = [&](std::size_t i, const CuckooIndex::Finding& found) DOLMEN_INLINED {
    if (found.bucket == nullptr) return;
    const float slot_scale = stepping.scale * rules_[slot_of(sums.fids()[i])].learning_rate_scale;
    if (slot_scale == 0.0F) return;  // Not even a mean of squares moves.
    about_to_change(found.row);
    if (!is_touched(found.row)) {
      rows_.facts(found.row).epoch.store(current_epoch(), std::memory_order_relaxed);
      share.fresh.push_back(found.row);
    }
    auto* vector = reinterpret_cast<float*>(found.memory);
    float* state = rows_.is_state_beside_vector() ? vector + rows_.dim() : rows_.state(found.row);
    block[pending_count++] = {vector, state, i, &found.bucket->version, slot_scale};
    if (pending_count == kStepBlock) step_block();
  };
  index_.find_each(processor, sums.fids(), fetch, use);
  step_block();
}

std::size_t Table::apply_gradients(std::span<const std::int64_t> fids, std::span<const float> gradients, float scale) {
  const std::lock_guard lock(writing_);
  const Stepping stepping{fids, gradients, scale, share_count_of(fids.size(), thread_count())};
  const auto shares = std::span(shares_).first(stepping.share_count);
  for (Share& share : shares) {
    share.sums.make_room(fids.size());
    share.made.resize(2 * std::size_t{dim()});
    share.fresh.clear();
    share.fresh.reserve(fids.size());
    share.updated_count = 0;
  }
  clocks_.step_count += 1;
  in_parallel(stepping.share_count, [&](std::size_t number) {
    with_processor([&](auto processor) DOLMEN_INLINED { step_by(processor, stepping, number); });
  });
  std::size_t updated_count = 0;
  for (const Share& share : shares) {
    for (const std::uint32_t row : share.fresh) touch(row);
    updated_count += share.updated_count;
  }
  return updated_count;
}

void Table::assign(std::span<const std::int64_t> fids, std::span<const float> vectors) {
  const std::lock_guard lock(writing_);
  for (std::size_t i = 0; i < fids.size(); ++i) {
    prefetch_ahead(fids, i);
    touch(put(fids[i], &vectors[i * rows_.dim()]));
    if (i % kStretch == 0) index_.readers().collect();
  }
}

std::size_t Table::erase(std::span<const std::int64_t> fids) {
  const std::lock_guard lock(writing_);
  std::size_t erased_count = 0;
  for (std::size_t i = 0; i < fids.size(); ++i) {
    prefetch_ahead(fids, i);
    forget_pending(fids[i]);
    const CuckooIndex::Place place = index_.place_of(fids[i]);
    if (!place) continue;
    remove_for_good(place, fids[i]);
    erased_count += 1;
  }
  return erased_count;
}

Table::Progress Table::expire(std::int64_t now_us, std::uint32_t begin, std::size_t look_max, std::size_t leave_max) {
  const std::lock_guard lock(writing_);
  return expire_rows(now_us, begin, look_max, leave_max);
}

Table::Progress Table::expire_rows(std::int64_t now_us, std::uint32_t begin, std::size_t look_max,
                                   std::size_t leave_max) {
  time_seen_max_us_ = std::max(time_seen_max_us_, now_us);
  std::array<std::uint32_t, kLeaveBlock> leaving;  // So that their buckets are waited for together.
  std::size_t leaving_count = 0;
  std::size_t expired_count = 0;
  const auto leave = [&] {
    for (std::size_t i = 0; i < leaving_count; ++i) remove_for_good(leaving[i]);
    leaving_count = 0;
  };
  std::uint32_t row = rows_.next_live(begin);
  for (std::size_t i = 0; i < look_max && expired_count < leave_max && row < rows_.row_end();
       ++i, row = rows_.next_live(row + 1)) {
    const RowFacts& facts = rows_.facts(row);
    const std::int64_t fid = facts.fid.load(std::memory_order_relaxed);
    if (!is_expired(fid, facts.last_seen_us.load(std::memory_order_relaxed), now_us)) continue;
    prefetch_to_leave(row);
    leaving[leaving_count++] = row;
    expired_count += 1;
    if (leaving_count == kLeaveBlock) leave();
  }
  leave();
  return {expired_count, row};
}

std::size_t Table::expire_pending(std::int64_t now_us, std::size_t count_max) {
  const std::lock_guard lock(writing_);
  return expire_counts(now_us, count_max);
}

std::size_t Table::expire_counts(std::int64_t now_us, std::size_t count_max) noexcept {
  std::size_t count = 0;
  for (std::uint32_t slot = 0; slot < kSlotCount && count < count_max; ++slot) {
    const std::int64_t after_us = rules_[slot].expire_after_us;
    ExactCounts* counts = exact_counts(slot);
    if (after_us > 0 && counts != nullptr) count += counts->expire(now_us, after_us, count_max - count);
  }
  return count;
}

void Table::begin_sweep(std::int64_t now_us) {
  const std::lock_guard lock(writing_);
  time_seen_max_us_ = std::max(time_seen_max_us_, now_us);
  // A sweep that is on goes on where it is, by the newer time: one that began anew each time might never end.
  if (clocks_.sweep_us == kNeverSeen) clocks_.sweep_row = 0;
  clocks_.sweep_us = std::max(clocks_.sweep_us, now_us);
}

std::size_t Table::sweep(std::size_t look_max, std::size_t leave_max) {
  const std::lock_guard lock(writing_);
  if (clocks_.sweep_us == kNeverSeen) return 0;
  const bool has_more_counts = expire_counts(clocks_.sweep_us, leave_max) == leave_max;
  const Progress progress = expire_rows(clocks_.sweep_us, clocks_.sweep_row, look_max, leave_max);
  clocks_.sweep_row = progress.next;
  if (progress.next >= rows_.row_end() && !has_more_counts) clocks_.sweep_us = kNeverSeen;
  return progress.count;
}

std::size_t Table::begin_eviction() {
  const std::lock_guard lock(writing_);
  return static_cast<std::size_t>(std::exchange(clocks_.inserted_count, 0));
}

std::size_t Table::evict(std::size_t count_max) {
  const std::lock_guard lock(writing_);
  std::size_t count = 0;
  for (const std::uint32_t bound : bounds_) {
    const SlotRows& rows = *bounded_[bound];
    while (count < count_max && rows.is_over()) count += evict_block(rows, std::min(count_max - count, rows.excess()));
  }
  return count;
}

// Evicts up to `count_max` rows, and says how many.
std::size_t Table::evict_block(const SlotRows& rows, std::size_t count_max) {
  std::array<std::uint32_t, SlotRows::kWorstMax> worst;
  const std::size_t count =
      rows.find_worst(rows_, clocks_.eviction_count, std::min(count_max, SlotRows::kWorstMax), worst);
  for (std::size_t i = 0; i < count; ++i) prefetch_to_leave(worst[i]);
  for (std::size_t i = 0; i < count; ++i) remove_for_good(worst[i]);
  clocks_.eviction_count += count;
  return count;
}

// Calls in what `remove_for_good` will touch of the index.
void Table::prefetch_to_leave(std::uint32_t row) const noexcept {
  const CuckooIndex::Choice buckets = index_.choice(rows_.facts(row).fid.load(std::memory_order_relaxed));
  __builtin_prefetch(buckets.first);
  __builtin_prefetch(buckets.second);
}

// Removes a row and notes it, so that the next delta tells of it.
void Table::remove_for_good(std::uint32_t row) {
  const std::int64_t fid = rows_.facts(row).fid.load(std::memory_order_relaxed);
  remove_for_good(index_.place_of(fid), fid);
}

void Table::remove_for_good(CuckooIndex::Place place, std::int64_t fid) {
  changes_.back().removed.push_back(fid);
  remove(place);
}

bool Table::is_expired(std::int64_t fid, std::int64_t last_seen_us, std::int64_t now_us) const noexcept {
  const std::int64_t after_us = rules_[slot_of(fid)].expire_after_us;
  return after_us > 0 && now_us - last_seen_us >= after_us;
}

void Table::set_rule(std::uint32_t slot, const Rule& rule) {
  const std::lock_guard lock(writing_);
  std::unique_ptr<Admission> admission;
  if (rule.admission.admit_after > 1) {
    admission = std::make_unique<Admission>(make_admission(rule.admission, seed_, hash_seed_));
  }
  set_bound(slot, rule.capacity);
  rules_[slot] = rule;
  admissions_[slot] = std::move(admission);
}

void Table::set_capacity(const CapacityOptions& options) {
  const std::lock_guard lock(writing_);
  set_bound(kSlotCount, options);
}

void Table::set_bound(std::uint32_t bound, const CapacityOptions& options) {
  std::unique_ptr<SlotRows> rows;
  if (options.row_count_max > 0) {
    rows = std::make_unique<SlotRows>(options);
    bounds_.reserve(bounds_.size() + 1);
    for (std::uint32_t row = rows_.next_live(0); row < rows_.row_end(); row = rows_.next_live(row + 1)) {
      if (bound != kSlotCount && slot_of(rows_.facts(row).fid.load(std::memory_order_relaxed)) != bound) continue;
      rows->make_room(row);
      rows->insert(row);
    }
  }
  clocks_.inserted_count = 0;  // What was made under other bounds leaves in turns of its own.
  bounded_[bound] = std::move(rows);
  std::erase(bounds_, bound);
  if (bounded_[bound]) bounds_.insert(std::ranges::upper_bound(bounds_, bound), bound);
}

std::int64_t Table::time_seen_max_us() const {
  const std::lock_guard lock(writing_);
  return time_seen_max_us_;
}

void Table::set_time_seen_max_us(std::int64_t time_us) {
  const std::lock_guard lock(writing_);
  time_seen_max_us_ = time_us;
}

Clocks Table::clocks() const {
  const std::lock_guard lock(writing_);
  return clocks_;
}

void Table::restore_clocks(const Clocks& clocks) {
  const std::lock_guard lock(writing_);
  clocks_ = clocks;
}

void Table::prefetch_ahead(std::span<const std::int64_t> fids, std::size_t i) const noexcept {
  if (i + kAhead >= fids.size()) return;
  const CuckooIndex::Choice buckets = index_.choice(fids[i + kAhead]);
  __builtin_prefetch(buckets.first);
  __builtin_prefetch(buckets.second);  // An absent FID is looked for in both.
}

// A row with the given vector, or start values where that is null; not yet counted as seen, in no epoch. It is whole
// before any reader can find it.
CuckooIndex::Place Table::insert_row(std::int64_t fid, std::int64_t last_seen_us, const float* vector) {
  const std::uint32_t row = rows_.allocate();
  try {
    touched_.make_room(rows_.row_max());
    if (vector == nullptr) {
      start_values_.fill(fid, start_);
      vector = start_.data();
    }
    rows_.write(row, vector);
    std::visit([&](const auto& optimizer) { optimizer.init(rows_.state(row), rows_.dim()); }, optimizer_);
    RowFacts& facts = rows_.facts(row);
    facts.fid.store(fid, std::memory_order_relaxed);
    facts.last_seen_us.store(last_seen_us, std::memory_order_relaxed);
    facts.count.store(0, std::memory_order_relaxed);
    facts.epoch.store(kNoEpoch, std::memory_order_relaxed);
    make_room_to_count(fid, row);
    const CuckooIndex::Place place = index_.insert(fid, row);
    count_row(fid, row);
    clocks_.inserted_count += 1;
    return place;
  } catch (...) {
    rows_.release(row);
    throw;
  }
}

// Sets a vector, in a new row if need be; a row's optimiser state stays. Returns the row number.
std::uint32_t Table::put(std::int64_t fid, const float* vector) {
  CuckooIndex::Place place = index_.place_of(fid);
  if (!place) {
    place = insert_row(fid, time_seen_max_us_, vector);
    forget_pending(fid);
    return place.row();
  }
  about_to_change(place.row());
  const Change change(place.bucket->version);
  rows_.write(place.row(), vector);
  return place.row();
}

void Table::make_room_to_count(std::int64_t fid, std::uint32_t row) {
  for (const std::uint32_t bound : {slot_of(fid), kSlotCount}) {
    if (bounded_[bound]) bounded_[bound]->make_room(row);
  }
}

void Table::count_row(std::int64_t fid, std::uint32_t row) noexcept {
  const std::uint32_t slot = slot_of(fid);
  for (const std::uint32_t bound : {slot, kSlotCount}) {
    if (bounded_[bound]) bounded_[bound]->insert(row);
  }
  totals_[slot].rows += 1;
}

void Table::touch(std::uint32_t row) {
  if (is_touched(row)) return;
  changes_.back().rows.add(row, rows_.row_max());
  touched_.set(row);
  rows_.facts(row).epoch.store(current_epoch(), std::memory_order_relaxed);
}

void Table::remove(CuckooIndex::Place place) noexcept {
  const std::uint32_t row = place.row();
  about_to_change(row);
  const RowFacts& facts = rows_.facts(row);
  const std::uint32_t slot = slot_of(facts.fid.load(std::memory_order_relaxed));
  for (const std::uint32_t bound : {slot, kSlotCount}) {
    if (bounded_[bound]) bounded_[bound]->erase(row);
  }
  SlotTotal& total = totals_[slot];
  total.rows -= 1;
  total.sights -= facts.count.load(std::memory_order_relaxed);
  index_.erase(place);
  rows_.release(row);
  touched_.clear(row);
}

// ---------------------------------------------------------------------------------------------------------- changes

std::uint32_t Table::epoch() const {
  const std::lock_guard lock(writing_);
  return current_epoch();
}

std::uint32_t Table::oldest_epoch() const {
  const std::lock_guard lock(writing_);
  return oldest_epoch_;
}

std::uint32_t Table::advance_epoch() {
  const std::lock_guard lock(writing_);
  changes_.emplace_back();
  touched_.clear_all();
  return current_epoch();
}

void Table::forget_epochs(std::uint32_t before) {
  const std::lock_guard lock(writing_);
  for (; oldest_epoch_ < before && changes_.size() > 1; ++oldest_epoch_) changes_.pop_front();
}

Changes Table::changes_since(std::uint32_t epoch) {
  Changes changes{epoch, epoch, {}, {}};
  {
    const std::lock_guard lock(writing_);
    changes.last = current_epoch();
    std::vector<std::uint64_t> due((std::size_t{rows_.row_end()} + 63) / 64, 0);
    for (std::uint32_t at = epoch; at <= changes.last; ++at) {
      const EpochChanges& listed = changes_[at - oldest_epoch_];
      listed.rows.mark(due);
      for (std::size_t i = 0; i < listed.removed.size(); ++i) {
        prefetch_ahead(listed.removed, i);
        if (!index_.place_of(listed.removed[i])) changes.removed.push_back(listed.removed[i]);
      }
    }
    for (std::size_t i = 0; i < due.size(); ++i) due[i] &= rows_.live().word(i);
    changes.rows = at_this_instant(due);
  }
  std::sort(changes.removed.begin(), changes.removed.end());
  changes.removed.erase(std::unique(changes.removed.begin(), changes.removed.end()), changes.removed.end());
  return changes;
}

void Table::apply_delta(std::span<const std::int64_t> fids, std::span<const float> vectors,
                        std::span<const std::int64_t> removed) {
  const std::lock_guard lock(writing_);
  for (std::size_t i = 0; i < fids.size(); ++i) {
    prefetch_ahead(fids, i);
    put(fids[i], &vectors[i * rows_.dim()]);
    if (i % kStretch == 0) index_.readers().collect();
  }
  for (const std::int64_t fid : removed) {
    forget_pending(fid);
    if (const CuckooIndex::Place place = index_.place_of(fid)) remove(place);
  }
}

// --------------------------------------------------------------------------------------------------- export, restore

std::uint32_t Table::row_end() const {
  const std::lock_guard lock(writing_);
  return rows_.row_end();
}

HeldInstant Table::all_rows() {
  const std::lock_guard lock(writing_);
  std::vector<std::uint64_t> due((std::size_t{rows_.row_end()} + 63) / 64);
  for (std::size_t i = 0; i < due.size(); ++i) due[i] = rows_.live().word(i);
  return at_this_instant(due);
}

// `writing_` must be held.
HeldInstant Table::at_this_instant(const std::vector<std::uint64_t>& due) {
  instants_.reserve(instants_.size() + 1);
  HeldInstant instant(new Instant(rows_, due), LetGo{this});
  instants_.push_back(instant.get());
  return instant;
}

void Table::let_go(Instant* instant) noexcept {
  {
    const std::lock_guard lock(writing_);
    std::erase(instants_, instant);
  }
  delete instant;
}

void LetGo::operator()(Instant* instant) const noexcept {
  table->let_go(instant);
}

void Table::reserve(std::size_t row_count) {
  const std::lock_guard lock(writing_);
  index_.reserve(row_count);
  index_.readers().collect();
}

bool Table::restore_rows(const RowColumns<true>& columns) {
  const std::lock_guard lock(writing_);
  const std::span<const std::uint32_t> numbers = columns.row_numbers;
  if (!numbers.empty()) rows_.reserve(*std::max_element(numbers.begin(), numbers.end()));
  std::size_t restored_count = 0;
  const auto take_back = [&]() noexcept {
    for (std::size_t i = 0; i < restored_count; ++i) remove(index_.place_of(columns.fids[i]));
  };
  try {
    for (; restored_count < columns.fids.size(); ++restored_count) {
      if (restore_row(columns, restored_count)) continue;
      take_back();
      return false;
    }
  } catch (...) {
    take_back();
    throw;
  }
  index_.readers().collect();
  return true;
}

// False where the FID is present or the row number taken.
bool Table::restore_row(const RowColumns<true>& columns, std::size_t i) {
  prefetch_ahead(columns.fids, i);
  const std::int64_t fid = columns.fids[i];
  const bool is_numbered = !columns.row_numbers.empty();
  if (index_.place_of(fid) || (is_numbered && rows_.is_live(columns.row_numbers[i]))) return false;
  const std::uint32_t row = is_numbered ? rows_.allocate(columns.row_numbers[i]) : rows_.allocate();
  try {
    rows_.write(row, &columns.vectors[i * dim()]);
    std::copy_n(columns.states.data() + i * state_dim(), state_dim(), rows_.state(row));
    RowFacts& facts = rows_.facts(row);
    facts.fid.store(fid, std::memory_order_relaxed);
    facts.last_seen_us.store(columns.last_seen_us[i], std::memory_order_relaxed);
    const std::uint32_t count = counted(0, columns.counts[i]);
    facts.count.store(count, std::memory_order_relaxed);
    facts.epoch.store(kNoEpoch, std::memory_order_relaxed);
    touched_.make_room(rows_.row_max());
    if (columns.epochs.empty()) {
      touch(row);
    } else {
      restore_epoch(row, columns.epochs[i]);
    }
    make_room_to_count(fid, row);
    index_.insert(fid, row);
    count_row(fid, row);
    totals_[slot_of(fid)].sights += count;
    return true;
  } catch (...) {
    rows_.release(row);
    throw;
  }
}

void Table::restore_epoch(std::uint32_t row, std::uint32_t epoch) {
  rows_.facts(row).epoch.store(epoch, std::memory_order_relaxed);
  if (epoch >= oldest_epoch_ && epoch <= current_epoch()) {
    changes_[epoch - oldest_epoch_].rows.add(row, rows_.row_max());
  }
}

std::vector<PendingFid> Table::pending() const {
  const std::lock_guard lock(writing_);
  std::vector<PendingFid> all;
  for (std::uint32_t slot = 0; slot < kSlotCount; ++slot) {
    if (const ExactCounts* counts = exact_counts(slot)) counts->copy_to(all);
  }
  return all;
}

bool Table::restore_pending(std::span<const PendingFid> pending) {
  const std::lock_guard lock(writing_);
  for (const PendingFid& each : pending) {
    if (exact_counts(slot_of(each.fid)) == nullptr) return false;
  }
  for (const PendingFid& each : pending) exact_counts(slot_of(each.fid))->restore(each);
  return true;
}

std::vector<std::pair<std::uint32_t, std::vector<std::uint8_t>>> Table::filters() const {
  const std::lock_guard lock(writing_);
  std::vector<std::pair<std::uint32_t, std::vector<std::uint8_t>>> all;
  for (std::uint32_t slot = 0; slot < kSlotCount; ++slot) {
    if (const auto* sketch = std::get_if<SlidingSketch>(admissions_[slot].get()))
      all.emplace_back(slot, sketch->state());
    if (const auto* bloom = std::get_if<CountingBloom>(admissions_[slot].get())) all.emplace_back(slot, bloom->state());
  }
  return all;
}

bool Table::restore_filter(std::uint32_t slot, std::span<const std::uint8_t> state) {
  const std::lock_guard lock(writing_);
  if (auto* sketch = std::get_if<SlidingSketch>(admissions_[slot].get())) return sketch->restore(state);
  if (auto* bloom = std::get_if<CountingBloom>(admissions_[slot].get())) return bloom->restore(state);
  return false;
}

std::uint64_t Table::failure_count(std::uint32_t slot) const {
  const std::lock_guard lock(writing_);
  const auto* sketch = std::get_if<SlidingSketch>(admissions_[slot].get());
  return sketch == nullptr ? 0 : sketch->failure_count();
}

std::vector<Removal> Table::removals() const {
  const std::lock_guard lock(writing_);
  std::vector<Removal> all;
  for (std::uint32_t at = oldest_epoch_; at <= current_epoch(); ++at) {
    for (const std::int64_t fid : changes_[at - oldest_epoch_].removed) all.push_back({fid, at});
  }
  return all;
}

void Table::restore_epochs(std::uint32_t oldest, std::uint32_t current, std::span<const Removal> removals) {
  const std::lock_guard lock(writing_);
  changes_ = std::deque<EpochChanges>(current - oldest + 1);
  touched_.clear_all();
  oldest_epoch_ = oldest;
  for (const Removal& removal : removals) changes_[removal.epoch - oldest].removed.push_back(removal.fid);
}

std::vector<SlotTotal> Table::slot_totals() const {
  const std::lock_guard lock(writing_);
  return totals_;
}

std::vector<std::int64_t> Table::fids_of(std::uint32_t slot) const {
  const std::lock_guard lock(writing_);
  std::vector<std::int64_t> fids;
  fids.reserve(static_cast<std::size_t>(totals_[slot].rows));
  for (std::uint32_t row = rows_.next_live(0); row < rows_.row_end(); row = rows_.next_live(row + 1)) {
    const std::int64_t fid = rows_.facts(row).fid.load(std::memory_order_relaxed);
    if (slot_of(fid) == slot) fids.push_back(fid);
  }
  return fids;
}

MemorySizes Table::memory() const {
  const std::lock_guard lock(writing_);
  MemorySizes sizes{index_.memory_size(), rows_.memory_size(), 0, touched_.memory_size()};
  for (const auto& admission : admissions_) {
    if (admission) sizes.pending += std::visit([](const auto& kind) { return kind.memory_size(); }, *admission);
  }
  for (const std::uint32_t bound : bounds_) sizes.rows += bounded_[bound]->memory_size();
  for (const EpochChanges& changes : changes_) {
    sizes.changes += changes.rows.memory_size() + changes.removed.capacity() * sizeof(std::int64_t);
  }
  return sizes;
}

}  // namespace dolmen
