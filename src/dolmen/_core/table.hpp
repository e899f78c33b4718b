// The collisionless table: FID -> row, in batches.
//
// Threads: what is const may be called by any thread at any time, and never waits for a writer longer than one row's
// change takes; `lookup`, `contains`, `counts` and `last_seen` take no lock at all. Calls that change the table are put
// in line by a mutex; so are the totals, and the first moment of `all_rows` and `changes_since`: what these give is
// read while writers go on. A call on a large batch may itself use several threads (`set_thread_count`).
//
// Deterministic: the same calls in the same order give the same rows, numbered alike, by however many threads. Only the
// places in the index depend on its seed, and nobody sees those.
//
// Arguments are checked by the caller (module.cpp): FIDs are not negative, spans match in length, rows in width.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "admission.hpp"
#include "changed_rows.hpp"
#include "cuckoo_index.hpp"
#include "eviction.hpp"
#include "gradient_sums.hpp"
#include "hash.hpp"
#include "instant.hpp"
#include "optimizers.hpp"
#include "row_columns.hpp"
#include "row_store.hpp"

namespace dolmen {

inline constexpr std::int64_t kNeverSeen = -1;

struct Rule {
  AdmissionOptions admission;        // Up to 1 sight, a FID gets its row at once.
  std::int64_t expire_after_us = 0;  // A row leaves when it was not seen for so long; 0: never.
  CapacityOptions capacity;
  float learning_rate_scale = 1.0F;
  bool absent_reads_start = false;  // An absent FID reads as the vector that it would begin with, not as zeros.
};

// What upkeep and draws have come to; with rows and rules, it makes a restored table go on alike.
struct Clocks {
  std::uint64_t step_count = 0;        // Calls of apply_gradients.
  std::uint64_t batch_count = 0;       // Calls of lookup_or_insert.
  std::uint64_t eviction_count = 0;    // Rows that were evicted.
  std::uint64_t inserted_count = 0;    // Rows that were made since a turn of eviction last began.
  std::int64_t sweep_us = kNeverSeen;  // The time that the sweep for expired rows goes by; kNeverSeen: none is on.
  std::uint32_t sweep_row = 0;         // Where it goes on.
};

struct TableOptions {
  std::uint32_t dim;
  std::uint64_t seed;       // Of start values.
  std::uint64_t hash_seed;  // Of places in the index; not seen in any result.
  float initial_range;
  Clip clip{};
  Precision precision = Precision::kFloat32;  // Narrower: a table that serves, whose rows come by `put` alone.
};

class Table;

// Rows at one instant; writers go on. They spare what they change until the holder lets go. The table must outlive it.
struct LetGo {
  Table* table = nullptr;
  void operator()(Instant* instant) const noexcept;
};
using HeldInstant = std::unique_ptr<Instant, LetGo>;

// What changed from epoch `first` to `last`, the current one: rows, among others whose epoch is not of these, which
// the reader passes over; and the FIDs that were removed, in order.
struct Changes {
  std::uint32_t first, last;
  HeldInstant rows;
  std::vector<std::int64_t> removed;
};

struct Removal {
  std::int64_t fid;
  std::uint32_t epoch;
};

struct SlotTotal {
  std::int64_t rows = 0, sights = 0;
};

struct MemorySizes {
  std::size_t index, rows, pending, changes;
};

class Table {
 public:
  Table(const TableOptions& options, Optimizer optimizer);

  std::uint32_t dim() const noexcept { return rows_.dim(); }
  std::uint32_t state_dim() const noexcept { return rows_.state_dim(); }
  Precision precision() const noexcept { return rows_.precision(); }
  // Of the look-ups and the step of a batch; 1 at first, at most kThreadsMax.
  std::size_t thread_count() const noexcept { return thread_count_.load(std::memory_order_relaxed); }
  void set_thread_count(std::size_t count);
  std::size_t size() const noexcept { return index_.size(); }
  // Of a row's gradients, which the caller has to see to.
  float gradient_sum_max() const noexcept { return gradient_sum_max_; }

  // Absent FIDs read as zeros.
  void lookup(std::span<const std::int64_t> fids, std::span<float> out) const noexcept;
  void contains(std::span<const std::int64_t> fids, std::span<bool> out) const noexcept;
  void counts(std::span<const std::int64_t> fids, std::span<std::int64_t> out) const noexcept;
  void last_seen(std::span<const std::int64_t> fids, std::span<std::int64_t> out) const noexcept;

  void lookup_or_insert(std::span<const std::int64_t> fids, std::int64_t now_us, std::span<float> out);
  // Sums the gradients of equal FIDs in the order given, then one step a row. Returns how many rows were updated.
  std::size_t apply_gradients(std::span<const std::int64_t> fids, std::span<const float> gradients, float scale);
  void assign(std::span<const std::int64_t> fids, std::span<const float> vectors);
  std::size_t erase(std::span<const std::int64_t> fids);
  // Looks at up to `look_max` rows from row number `begin` on, until `leave_max` have left. Returns how many did, and
  // where to go on (row_end or above: done).
  struct Progress {
    std::size_t count;
    std::uint32_t next;
  };
  Progress expire(std::int64_t now_us, std::uint32_t begin, std::size_t look_max, std::size_t leave_max);
  // Forgets up to `count_max` counts of FIDs without a row. Returns how many.
  std::size_t expire_pending(std::int64_t now_us, std::size_t count_max);
  // Both in turns: `begin_sweep` says by which time, and each `sweep` looks at up to `look_max` rows, and lets up to
  // `leave_max` leave, and as many counts. Returns how many rows left.
  void begin_sweep(std::int64_t now_us);
  std::size_t sweep(std::size_t look_max, std::size_t leave_max);
  // How many rows were made since it was called last: so many a turn must evict for the table not to grow.
  std::size_t begin_eviction();
  // Removes up to `count_max` rows beyond the capacity of their slots, then of the table. Returns how many.
  std::size_t evict(std::size_t count_max);

  void set_rule(std::uint32_t slot, const Rule& rule);  // Before the first sight.
  void set_capacity(const CapacityOptions& options);    // Of all rows together.
  std::int64_t time_seen_max_us() const;
  void set_time_seen_max_us(std::int64_t time_us);
  Clocks clocks() const;
  void restore_clocks(const Clocks& clocks);

  std::uint32_t epoch() const;
  std::uint32_t oldest_epoch() const;  // From here on changes are remembered.
  std::uint32_t advance_epoch();
  void forget_epochs(std::uint32_t before);
  Changes changes_since(std::uint32_t epoch);
  void apply_delta(std::span<const std::int64_t> fids, std::span<const float> vectors,
                   std::span<const std::int64_t> removed);

  std::uint32_t row_end() const;
  HeldInstant all_rows();
  void let_go(Instant* instant) noexcept;
  // Room in the index for so many rows, made at once; for an empty table.
  void reserve(std::size_t row_count);
  // False where a FID was present or a row number taken. Empty `row_numbers`: the lowest that are free; empty `epochs`:
  // touched now. Epochs outside those remembered are kept, but no delta will tell of them.
  bool restore_rows(const RowColumns<true>& columns);
  // The exact counts, by slot and then from the oldest sight to the newest.
  std::vector<PendingFid> pending() const;
  bool restore_pending(std::span<const PendingFid> pending);  // False, and nothing done, where a slot does not count.
  // The sketches and Bloom filters, by slot.
  std::vector<std::pair<std::uint32_t, std::vector<std::uint8_t>>> filters() const;
  bool restore_filter(std::uint32_t slot, std::span<const std::uint8_t> state);  // False where it does not fit.
  std::uint64_t failure_count(std::uint32_t slot) const;                         // Of the slot's sketch.
  std::vector<Removal> removals() const;
  void restore_epochs(std::uint32_t oldest, std::uint32_t current, std::span<const Removal> removals);

  std::vector<SlotTotal> slot_totals() const;                   // By slot number.
  std::vector<std::int64_t> fids_of(std::uint32_t slot) const;  // Those with a row, in the order of row numbers.
  MemorySizes memory() const;

 private:
  struct EpochChanges {
    ChangedRows rows;  // Some may have been freed since.
    std::vector<std::int64_t> removed;
  };
  std::uint32_t current_epoch() const noexcept {
    return oldest_epoch_ + static_cast<std::uint32_t>(changes_.size()) - 1;
  }
  struct Seeing;
  void see(const Seeing& seeing, std::vector<std::size_t>* missing);
  bool is_expired(std::int64_t fid, std::int64_t last_seen_us, std::int64_t now_us) const noexcept;
  Sights sights_to_admit(std::int64_t fid, std::int64_t now_us);
  void read_absent(std::int64_t fid, std::span<float> out) const noexcept;
  ExactCounts* exact_counts(std::uint32_t slot) const noexcept;  // Null where the slot counts otherwise or not at all.
  void forget_pending(std::int64_t fid) noexcept;
  Progress expire_rows(std::int64_t now_us, std::uint32_t begin, std::size_t look_max, std::size_t leave_max);
  std::size_t expire_counts(std::int64_t now_us, std::size_t count_max) noexcept;
  std::size_t evict_block(const SlotRows& rows, std::size_t count_max);
  void prefetch_to_leave(std::uint32_t row) const noexcept;
  void remove_for_good(std::uint32_t row);
  void remove_for_good(CuckooIndex::Place place, std::int64_t fid);
  void set_bound(std::uint32_t bound, const CapacityOptions& options);
  void make_room_to_count(std::int64_t fid, std::uint32_t row);
  void count_row(std::int64_t fid, std::uint32_t row) noexcept;
  CuckooIndex::Place insert_row(std::int64_t fid, std::int64_t last_seen_us, const float* vector);
  std::uint32_t put(std::int64_t fid, const float* vector);
  void touch(std::uint32_t row);
  // Must be called before any change to a row that was there before.
  void about_to_change(std::uint32_t row) noexcept {
    for (Instant* instant : instants_) instant->save(row);
  }
  HeldInstant at_this_instant(const std::vector<std::uint64_t>& due);
  void remove(CuckooIndex::Place place) noexcept;
  bool restore_row(const RowColumns<true>& columns, std::size_t i);
  void restore_epoch(std::uint32_t row, std::uint32_t epoch);
  void prefetch_ahead(std::span<const std::int64_t> fids, std::size_t i) const noexcept;
  template <typename Fact>
  void read_facts(std::span<const std::int64_t> fids, std::span<std::int64_t> out, std::atomic<Fact> RowFacts::* fact,
                  std::int64_t absent) const noexcept;
  template <typename Copy, typename Absent>
  void read_again(std::int64_t fid, const Copy& copy, const Absent& absent) const noexcept;
  template <typename Processor, typename Fetch, typename Copy, typename Absent>
  void read_each(Processor processor, std::span<const std::int64_t> fids, const Fetch& fetch, const Copy& copy,
                 const Absent& absent) const noexcept;
  template <typename Processor>
  void lookup_by(Processor processor, std::span<const std::int64_t> fids, std::span<float> out) const noexcept;
  template <typename Processor>
  void see_by(Processor processor, const Seeing& seeing, std::vector<std::size_t>* missing);
  std::int64_t see_found(const Seeing& seeing, std::size_t i, std::uint32_t row, const Sights& sights) noexcept;
  void see_missing(const Seeing& seeing, std::size_t i);
  struct PendingStep;
  struct Stepping;
  template <typename Processor>
  void step_by(Processor processor, const Stepping& stepping, std::size_t number);
  bool is_touched(std::uint32_t row) const noexcept { return touched_.test(row); }

  mutable std::mutex writing_;
  std::vector<Instant*> instants_;  // That somebody reads.
  CuckooIndex index_;
  RowStore rows_;
  Optimizer optimizer_;
  Clip clip_;
  float gradient_sum_max_;
  // What one of the threads that share a batch works with.
  struct Share {
    explicit Share(std::uint64_t hash_seed) : sums(hash_seed) {}
    GradientSums sums;
    std::vector<float> made;           // Where a row's gradients are added up, and clipped.
    std::vector<std::uint32_t> fresh;  // Rows it has changed that were not touched in this epoch before.
    std::size_t updated_count = 0;
    std::vector<std::size_t> missing;  // Positions of FIDs without a row.
  };
  std::atomic<std::size_t> thread_count_{1};
  std::vector<Share> shares_;
  std::uint64_t seed_, hash_seed_;
  StartValues start_values_;
  std::vector<float> start_;  // Where they are made.
  std::vector<Rule> rules_ = std::vector<Rule>(kSlotCount);
  std::vector<SlotTotal> totals_ = std::vector<SlotTotal>(kSlotCount);
  std::vector<std::unique_ptr<Admission>> admissions_{kSlotCount};  // Null: at once.
  // By slot, and kSlotCount for all rows together; null: no bound. `bounds_`: which have one, in order.
  std::vector<std::unique_ptr<SlotRows>> bounded_{kSlotCount + 1};
  std::vector<std::uint32_t> bounds_;
  std::int64_t time_seen_max_us_ = 0;
  Clocks clocks_;
  std::uint32_t oldest_epoch_ = 0;
  RowBits touched_;                      // Rows in the current epoch's list.
  std::deque<EpochChanges> changes_{1};  // Of oldest_epoch_ and on; the last is of the current epoch.
};

}  // namespace dolmen
