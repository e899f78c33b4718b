// The collisionless table: FID -> row, in batches.
//
// Threads: what is const may be called by any thread at any time, and never waits for a writer longer than one row's
// change takes; `lookup`, `contains`, `counts` and `last_seen` take no lock at all. Calls that change the table are put
// in line by a mutex; so are the totals, and the first moment of `all_rows` and `changes_since`: what these give is
// read while writers go on.
//
// Deterministic: the same calls in the same order give the same rows, numbered alike. Only the places in the index
// depend on its seed, and nobody sees those.
//
// Arguments are checked by the caller (module.cpp): FIDs are not negative, spans match in length, rows in width.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "cuckoo_index.hpp"
#include "gradient_sums.hpp"
#include "hash.hpp"
#include "instant.hpp"
#include "optimizers.hpp"
#include "row_columns.hpp"
#include "row_store.hpp"

namespace dolmen {

inline constexpr std::int64_t kNeverSeen = -1;

struct Rule {
  std::int64_t admit_after = 0;      // A FID gets a row at its n-th sight; 0 and 1: at once.
  std::int64_t expire_after_us = 0;  // A row leaves when it was not seen for so long; 0: never.
  float learning_rate_scale = 1.0F;
};

struct TableOptions {
  std::uint32_t dim;
  std::uint64_t seed;       // Of start values.
  std::uint64_t hash_seed;  // Of places in the index; not seen in any result.
  float initial_range;
  Clip clip{};
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

struct PendingFid {
  std::int64_t fid, count, last_seen_us;
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
  std::size_t size() const noexcept { return index_.size(); }

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
  // Looks at `count_max` rows from row number `begin` on. Returns how many left, and where to go on (row_end: done).
  struct Progress {
    std::size_t count;
    std::uint32_t next;
  };
  Progress expire(std::int64_t now_us, std::uint32_t begin, std::size_t count_max);
  void expire_pending(std::int64_t now_us);

  void set_rule(std::uint32_t slot, Rule rule);
  std::int64_t time_seen_max_us() const;
  void set_time_seen_max_us(std::int64_t time_us);
  std::uint64_t step_count() const;  // Calls of apply_gradients.
  void set_step_count(std::uint64_t count);

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
  // False where a FID was present or a row number taken. Empty `row_numbers`: the lowest that are free; empty `epochs`:
  // touched now. Epochs outside those remembered are kept, but no delta will tell of them.
  bool restore_rows(const RowColumns<true>& columns);
  std::vector<PendingFid> pending() const;  // In no order.
  void restore_pending(std::span<const PendingFid> pending);
  std::vector<Removal> removals() const;
  void restore_epochs(std::uint32_t oldest, std::uint32_t current, std::span<const Removal> removals);

  std::vector<SlotTotal> slot_totals() const;  // By slot number.
  MemorySizes memory() const;

 private:
  struct Sights {
    std::int64_t count, last_us;
  };
  struct EpochChanges {
    std::vector<std::uint32_t> rows;  // May name a row twice, or one that was freed since.
    std::vector<std::int64_t> removed;
  };
  std::uint32_t current_epoch() const noexcept {
    return oldest_epoch_ + static_cast<std::uint32_t>(changes_.size()) - 1;
  }
  void see(std::span<const std::int64_t> fids, std::int64_t now_us, std::span<float> out);
  bool is_expired(std::int64_t fid, std::int64_t last_seen_us, std::int64_t now_us) const noexcept;
  Sights sights_to_admit(std::int64_t fid, std::int64_t now_us);
  CuckooIndex::Place insert_row(std::int64_t fid, std::int64_t last_seen_us, const float* vector);
  std::uint32_t put(std::int64_t fid, const float* vector);
  void touch(std::uint32_t row);
  // Must be called before any change to a row that was there before.
  void about_to_change(std::uint32_t row) noexcept {
    for (Instant* instant : instants_) instant->save(row);
  }
  HeldInstant at_this_instant(const std::vector<std::uint64_t>& due);
  void remove(CuckooIndex::Place place) noexcept;
  void restore_epoch(std::uint32_t row, std::uint32_t epoch);
  void prefetch_ahead(std::span<const std::int64_t> fids, std::size_t i) const noexcept;
  void read_facts(std::span<const std::int64_t> fids, std::span<std::int64_t> out,
                  std::atomic<std::int64_t> RowFacts::* fact, std::int64_t absent) const noexcept;
  template <typename Processor, typename Fetch, typename Copy, typename Absent>
  void read_each(Processor processor, std::span<const std::int64_t> fids, std::size_t lag, const Fetch& fetch,
                 const Copy& copy, const Absent& absent) const noexcept;
  template <typename Processor>
  void lookup_by(Processor processor, std::span<const std::int64_t> fids, std::span<float> out) const noexcept;
  template <typename Processor>
  void see_by(Processor processor, std::span<const std::int64_t> fids, std::int64_t now_us, std::span<float> out);
  struct PendingStep;
  template <typename Processor>
  std::size_t apply_by(Processor processor, std::span<const std::int64_t> fids, std::span<const float> gradients,
                       float scale);
  bool is_touched(std::uint32_t row) const noexcept { return (touched_[row / 64] >> (row % 64) & 1) != 0; }

  mutable std::mutex writing_;
  std::vector<Instant*> instants_;  // That somebody reads.
  CuckooIndex index_;
  RowStore rows_;
  Optimizer optimizer_;
  Clip clip_;
  std::vector<float> clipped_;  // Where clipped gradients are made.
  GradientSums sums_;
  StartValues start_values_;
  std::vector<float> start_;  // Where they are made.
  std::vector<Rule> rules_ = std::vector<Rule>(kSlotCount);
  std::vector<SlotTotal> totals_ = std::vector<SlotTotal>(kSlotCount);
  std::unordered_map<std::int64_t, Sights> pending_;
  std::int64_t time_seen_max_us_ = 0;
  std::uint64_t step_count_ = 0;
  std::uint32_t oldest_epoch_ = 0;
  std::vector<std::uint64_t> touched_;   // One bit a row: it is in the current epoch's list.
  std::deque<EpochChanges> changes_{1};  // Of oldest_epoch_ and on; the last is of the current epoch.
};

}  // namespace dolmen
