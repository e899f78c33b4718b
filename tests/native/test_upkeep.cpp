// All that a learner does at once: steps that two threads share, expiry, eviction, erasing, and beside them look-ups,
// snapshots, and a replica that follows by deltas and is read meanwhile.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "in_parallel.hpp"
#include "native_tests.hpp"

namespace {

using dolmen::Table;

constexpr std::int64_t kSlotBegin = std::int64_t{1} << dolmen::kFidValueBits;  // Of slot 1, which counts before rows.

// Every change sets, or steps, all columns of a row alike.
void require_whole_rows(std::span<const float> rows) {
  for (std::size_t i = 0; i < rows.size(); ++i) REQUIRE(rows[i] == rows[i / kDim * kDim]);
}

void set_rules(Table& table) {
  dolmen::Rule rule;
  rule.expire_after_us = 12;
  rule.capacity = {4000, dolmen::Eviction::kLru, 0};
  table.set_rule(0, rule);
  rule.admission = {dolmen::AdmissionKind::kExact, 2, 2000};
  rule.capacity = {1000, dolmen::Eviction::kScore, 20};
  table.set_rule(1, rule);
}

// Often one of few, sometimes one of many, from both slots.
std::int64_t some_fid(std::mt19937_64& random) {
  const std::uint64_t value = random() % 4 != 0 ? random() % 2000 : random() % 30'000;
  return static_cast<std::int64_t>(value) + (random() % 4 == 0 ? kSlotBegin : 0);
}

void read_rows(const Table& table, std::mt19937_64& random) {
  std::vector<std::int64_t> fids(2000), counts(fids.size()), last_seen_us(fids.size());
  std::ranges::generate(fids, [&] { return some_fid(random); });
  std::vector<float> out(fids.size() * kDim);
  table.lookup(fids, out);
  require_whole_rows(out);
  table.counts(fids, counts);
  table.last_seen(fids, last_seen_us);
  for (std::size_t i = 0; i < fids.size(); ++i) REQUIRE(counts[i] >= 0 && last_seen_us[i] >= dolmen::kNeverSeen);
}

void take_snapshot(Table& table) {
  std::vector<std::int64_t> all;
  {
    const dolmen::HeldInstant instant = table.all_rows();
    RowBuffer buffer(300, table);
    for (std::uint32_t at = 0; at < instant->row_end();) {
      const auto progress = instant->read(at, instant->row_end(), buffer.columns());
      require_whole_rows(std::span(buffer.vectors).first(progress.count * kDim));
      require_whole_rows(std::span(buffer.states).first(progress.count * kDim));
      for (std::size_t i = 0; i < progress.count; ++i) {
        REQUIRE(buffer.counts[i] >= 1 && buffer.last_seen_us[i] >= 1 && buffer.epochs[i] != dolmen::kNoEpoch);
      }
      all.insert(all.end(), buffer.fids.begin(), buffer.fids.begin() + static_cast<std::ptrdiff_t>(progress.count));
      at = progress.next;
    }
  }
  std::ranges::sort(all);
  REQUIRE(std::ranges::adjacent_find(all) == all.end());
  REQUIRE(table.pending().size() <= 2000);
  REQUIRE(table.memory().index > 0);
  table.removals();
  table.clocks();
}

// One step of the learner, with the upkeep that belongs to it.
void learn(Table& table, std::int64_t now, std::mt19937_64& random) {
  std::vector<std::int64_t> fids(3 * dolmen::kShareMin);
  std::ranges::generate(fids, [&] { return some_fid(random); });
  std::vector<float> out(fids.size() * kDim), gradients(fids.size() * kDim, static_cast<float>(now % 3) - 0.75F);
  table.lookup_or_insert(fids, now, out);
  require_whole_rows(out);
  table.apply_gradients(fids, gradients, 1.0F);
  table.begin_sweep(now);
  table.sweep(2048, 512);
  table.evict(table.begin_eviction() + 512);
  if (now % 5 == 0) table.erase(std::span(fids).first(300));
  if (now % 7 == 0) table.expire(now, 0, 1000, 1000);
  if (now % 7 == 3) table.expire_pending(now, 100);
  if (now % 11 == 0) table.set_capacity({4500, dolmen::Eviction::kLfu, 0});
}

// Brings the replica from epoch `next` to where the learner is. Returns where to go on.
std::uint32_t follow(Table& learner, Table& replica, std::uint32_t next) {
  const Delta delta = delta_since(learner, next);
  require_whole_rows(delta.vectors);
  replica.apply_delta(delta.fids, delta.vectors, delta.removed);
  learner.advance_epoch();
  learner.forget_epochs(delta.last);
  return delta.last;
}

}  // namespace

void test_upkeep_beside_readers(double seconds) {
  Table learner({kDim, 1, 7, 0.0F}, dolmen::AdaGrad{0.1F, 0.1F, 1e-8F, 0.0F});
  Table replica({kDim, 1, 8, 0.0F}, dolmen::Sgd{});
  set_rules(learner);
  learner.set_thread_count(2);
  std::atomic<bool> is_over{false};
  std::atomic<std::size_t> read_count{0}, snapshot_count{0};
  std::uint32_t next = 0;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    std::mt19937_64 random(1);
    for (; !is_over; ++read_count) {
      read_rows(learner, random);
      read_rows(replica, random);
    }
  });
  threads.emplace_back([&] {
    for (; !is_over; ++snapshot_count) take_snapshot(learner);
  });
  threads.emplace_back([&] {
    while (!is_over) next = follow(learner, replica, next);
  });
  std::mt19937_64 random(2);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (std::int64_t now = 1; now < 20 || std::chrono::steady_clock::now() < end; ++now) learn(learner, now, random);
  is_over = true;
  for (std::thread& thread : threads) thread.join();
  REQUIRE(read_count > 0 && snapshot_count > 0 && next > 0);
  REQUIRE(learner.clocks().eviction_count > 0);

  follow(learner, replica, next);
  REQUIRE(replica.size() == learner.size() && learner.size() > 0);
  std::size_t size = 0;
  for (const std::uint32_t slot : {0U, 1U}) {
    const std::vector<std::int64_t> fids = learner.fids_of(slot);
    std::vector<float> learned(fids.size() * kDim), served(fids.size() * kDim);
    learner.lookup(fids, learned);
    replica.lookup(fids, served);
    REQUIRE(learned == served);
    REQUIRE(learner.slot_totals()[slot].rows == static_cast<std::int64_t>(fids.size()));
    size += fids.size();
  }
  REQUIRE(size == learner.size());
}
