// The native table without Python, for the sanitizers: random operations against std::map, and readers beside a writer.
// Usage: test_table [seconds of the thread test]
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "in_parallel.hpp"
#include "native_tests.hpp"
#include "row_set.hpp"

namespace {

using dolmen::Table;

Table make_table(std::uint64_t hash_seed) {
  return Table({kDim, 1, hash_seed, 0.01F}, dolmen::AdaGrad{0.05F, 0.1F, 1e-8F, 0.0F});
}

// Assign and erase at random, from few FIDs to many, so that segments grow and split; then every FID reads back.
void test_against_map(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Table table = make_table(seed);
  std::map<std::int64_t, float> expected;
  for (int step = 0; step < 400; ++step) {
    std::vector<std::int64_t> fids(1 + random() % 600);
    for (std::int64_t& fid : fids) fid = static_cast<std::int64_t>(random() % 60'000) << (seed % 3 * 15);
    if (random() % 3 != 0) {
      const float plus = static_cast<float>(step) / 1024.0F;
      table.assign(fids, rows_of(fids, plus));
      for (const std::int64_t fid : fids) expected[fid] = static_cast<float>(fid % 100'000) + plus;
    } else {
      std::size_t erased_count = 0;
      for (const std::int64_t fid : fids) erased_count += expected.erase(fid);
      REQUIRE(table.erase(fids) == erased_count);
    }
    REQUIRE(table.size() == expected.size());
  }
  std::vector<std::int64_t> fids;
  for (std::int64_t i = 0; i < 60'000; ++i) fids.push_back(i << (seed % 3 * 15));
  std::vector<float> out(fids.size() * kDim);
  table.lookup(fids, out);
  for (std::size_t i = 0; i < fids.size(); ++i) {
    const auto found = expected.find(fids[i]);
    for (std::size_t j = 0; j < kDim; ++j)
      REQUIRE(out[i * kDim + j] == (found == expected.end() ? 0.0F : found->second));
  }
}

// Clusters far apart, from few rows to many, so that nodes and levels come while there are members.
void test_row_set(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  dolmen::RowSet set;
  std::set<std::uint32_t> expected;
  for (unsigned reach = 4; reach <= 26; ++reach) {
    for (int cluster = 0; cluster < 6; ++cluster) {
      const auto begin = static_cast<std::uint32_t>(random() & ((1U << reach) - 1));
      const std::uint32_t row_count = 1 + static_cast<std::uint32_t>(random() % 300);
      for (std::uint32_t row = begin; row < begin + row_count; row += 1 + static_cast<std::uint32_t>(random() % 2)) {
        set.make_room(row);
        if (expected.insert(row).second) {
          set.insert(row);
        } else if (random() % 2 == 0) {
          expected.erase(row);
          set.erase(row);
        }
      }
    }
    REQUIRE(set.size() == expected.size());
    std::vector<std::uint32_t> numbers(expected.size());
    std::iota(numbers.begin(), numbers.end(), 0U);
    set.find_nth(numbers);
    REQUIRE(std::equal(numbers.begin(), numbers.end(), expected.begin()));
  }
}

// One segment: until it splits, it is left for a larger one only once it is nine tenths full.
void test_load_before_growth() {
  dolmen::CuckooIndex index(11);
  for (std::int64_t fid = 0; fid < 1792 * 4; ++fid) {
    const std::size_t bucket_count = index.bucket_count();
    const std::size_t size = index.size();
    index.insert(fid, static_cast<std::uint32_t>(fid));
    index.readers().collect();
    if (index.bucket_count() != bucket_count && bucket_count >= 64) REQUIRE(size * 10 >= bucket_count * 5 * 9);
  }
}

// Room that was made at once is neither too small, or growth would move what comes, nor lavish.
void test_reserve() {
  constexpr std::size_t kCount = 200'000;
  dolmen::CuckooIndex index(5);
  index.reserve(kCount);
  index.readers().collect();
  const std::size_t reserved_count = index.bucket_count();
  for (std::size_t i = 0; i < kCount; ++i) index.insert(static_cast<std::int64_t>(i), static_cast<std::uint32_t>(i));
  REQUIRE(index.bucket_count() < reserved_count + reserved_count / 50);  // A few segments get more than their share.
  REQUIRE(index.moved_count() < kCount / 20);
  REQUIRE(kCount * 10 > reserved_count * dolmen::Bucket::kLanes * 7);
  for (std::size_t i = 0; i < kCount; ++i) REQUIRE(index.place_of(static_cast<std::int64_t>(i)).row() == i);
  index.reserve(4 * kCount);  // Not empty any more: nothing is thrown away.
  REQUIRE(index.size() == kCount && index.place_of(7).row() == 7);
}

void test_expire_and_restore() {
  Table table = make_table(3);
  dolmen::Rule rule;
  rule.admission = {dolmen::AdmissionKind::kExact, 2, 1U << 20};
  rule.expire_after_us = 10;
  table.set_rule(0, rule);
  std::vector<std::int64_t> fids;
  for (std::int64_t i = 0; i < 30'000; ++i) fids.push_back(i);
  std::vector<float> out(fids.size() * kDim);
  for (std::int64_t now = 0; now < 4; ++now) table.lookup_or_insert(fids, now, out);
  REQUIRE(table.size() == fids.size());
  REQUIRE(table.apply_gradients(fids, out, 1.0F) == fids.size());
  const std::size_t used = table.memory().rows;
  REQUIRE(table.expire(12, 0, fids.size(), fids.size()).count == 0);
  REQUIRE(table.expire(13, 0, fids.size(), 100).count == 100);
  REQUIRE(table.expire(13, 100, fids.size(), fids.size()).count == fids.size() - 100);
  REQUIRE(table.memory().rows < used / 10);
  REQUIRE(table.changes_since(0).removed.size() == fids.size());
}

// Each call of the writer moves all stable rows alike, and makes or removes all churned ones: so it was at any instant.
void check_instant(Table& table) {
  const dolmen::HeldInstant instant = table.all_rows();
  std::atomic<std::size_t> stable_count{0}, moved_count{0}, churned_count{0};
  const auto read = [&](std::uint32_t begin, std::uint32_t end) {
    constexpr std::size_t kSize = 300;
    std::vector<std::int64_t> fids(kSize), last_seen_us(kSize), counts(kSize);
    std::vector<float> vectors(kSize * kDim), states(kSize * table.state_dim());
    std::vector<std::uint32_t> epochs(kSize), row_numbers(kSize);
    while (begin < end) {
      const auto progress =
          instant->read(begin, end, {fids, vectors, states, last_seen_us, counts, epochs, row_numbers});
      for (std::size_t i = 0; i < progress.count; ++i) {
        const float plus = vectors[i * kDim] - static_cast<float>(fids[i] % 100'000);
        for (std::size_t j = 1; j < kDim; ++j) REQUIRE(vectors[i * kDim + j] == vectors[i * kDim]);
        REQUIRE(row_numbers[i] >= begin && row_numbers[i] < end);
        if (fids[i] >= 50'000) {
          churned_count += 1;
        } else {
          stable_count += 1;
          if (plus == 0.5F) moved_count += 1;
        }
      }
      begin = progress.next;
    }
  };
  std::thread other(read, 0, 6400);
  read(6400, instant->row_end() + 64);
  other.join();
  REQUIRE(stable_count == 3000);
  REQUIRE(moved_count == 0 || moved_count == 3000);
  REQUIRE(churned_count == 0 || churned_count == 30'000);
}

// The writer makes, changes, moves and removes rows; each row has one value in all its columns at every instant.
void test_readers_beside_a_writer(double seconds) {
  Table table = make_table(7);
  std::vector<std::int64_t> stable, churned;
  for (std::int64_t i = 0; i < 3000; ++i) stable.push_back(i);
  for (std::int64_t i = 0; i < 30'000; ++i) churned.push_back(50'000 + i);
  table.assign(stable, rows_of(stable));
  std::atomic<bool> is_over{false};
  std::atomic<std::uint64_t> read_count{0};
  const auto read = [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::int64_t> fids(500);
    std::vector<float> out(fids.size() * kDim);
    while (!is_over) {
      for (std::size_t i = 0; i < fids.size(); ++i)
        fids[i] = i % 2 == 0 ? stable[random() % 3000] : churned[random() % 30'000];
      table.lookup(fids, out);
      for (std::size_t i = 0; i < fids.size(); ++i) {
        const float* row = &out[i * kDim];
        for (std::size_t j = 1; j < kDim; ++j) REQUIRE(row[j] == row[0]);
        const float plus = row[0] - static_cast<float>(fids[i]);
        REQUIRE(plus == 0.0F || plus == 0.5F || (i % 2 == 1 && row[0] == 0.0F));
      }
      read_count += fids.size();
    }
  };
  std::thread first(read, 1);
  std::thread second(read, 2);
  std::thread third([&] {
    while (!is_over) check_instant(table);
  });
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (int step = 0; std::chrono::steady_clock::now() < end; ++step) {
    table.assign(stable, rows_of(stable, step % 2 == 0 ? 0.5F : 0.0F));
    table.assign(churned, rows_of(churned));
    table.erase(churned);
    table.forget_epochs(table.advance_epoch());
  }
  is_over = true;
  first.join();
  second.join();
  third.join();
  REQUIRE(read_count > 0);
}

// However a row is stored, a reader never sees half of it: all its columns are alike.
void test_narrow_rows_beside_a_writer(dolmen::Precision precision, double seconds) {
  Table table({kDim, 1, 7, 0.01F, {}, precision}, dolmen::Sgd{});
  std::vector<std::int64_t> fids;
  for (std::int64_t i = 0; i < 3000; ++i) fids.push_back(i);
  table.assign(fids, rows_of(fids));
  std::atomic<bool> is_over{false};
  std::thread reader([&] {
    std::vector<float> out(fids.size() * kDim);
    while (!is_over) {
      table.lookup(fids, out);
      for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == out[i / kDim * kDim]);
    }
  });
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (int step = 0; std::chrono::steady_clock::now() < end; ++step) {
    table.assign(fids, rows_of(fids, static_cast<float>(step % 7) * 100.0F));
  }
  is_over = true;
  reader.join();
}

// Batches of look-ups and steps by one thread and by three, on two tables beside each other: rows, counts and numbers
// stay the same bits. Meanwhile others read rows, whose columns are equal at any time, and take instants.
void test_threads_that_share_a_batch(double seconds) {
  Table alone = make_table(5);
  Table shared = make_table(6);
  shared.set_thread_count(3);
  std::atomic<bool> is_over{false};
  const auto read = [&] {
    std::vector<std::int64_t> fids(5000);
    for (std::size_t i = 0; i < fids.size(); ++i) fids[i] = static_cast<std::int64_t>(i);
    std::vector<float> out(fids.size() * kDim);
    while (!is_over) {
      shared.lookup(fids, out);
      for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == out[i / kDim * kDim]);
      const dolmen::HeldInstant instant = shared.all_rows();
      REQUIRE(instant->row_end() <= 30'000);
    }
  };
  std::thread reader(read);
  std::mt19937_64 random(3);
  const std::size_t count = 3 * dolmen::kShareMin;
  std::vector<float> zeros(kDim, 0.0F);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (std::int64_t now = 1; std::chrono::steady_clock::now() < end; ++now) {
    std::vector<std::int64_t> fids(count), made;
    for (std::int64_t& fid : fids) {
      fid = static_cast<std::int64_t>(random() % 8 == 0 ? random() % 20'000 : random() % 50);
      bool is_there = false;
      alone.contains(std::span(&fid, 1), std::span(&is_there, 1));
      if (!is_there) made.push_back(fid);
    }
    std::vector<float> out_alone(count * kDim), out_shared(count * kDim);
    for (const std::int64_t fid : made) {  // Start values differ by column.
      alone.assign(std::span(&fid, 1), zeros);
      shared.assign(std::span(&fid, 1), zeros);
    }
    alone.lookup_or_insert(fids, now, out_alone);
    shared.lookup_or_insert(fids, now, out_shared);
    REQUIRE(out_alone == out_shared);
    std::vector<float> gradients = rows_of(fids, 0.125F * static_cast<float>(now));
    REQUIRE(alone.apply_gradients(fids, gradients, 1.0F) == shared.apply_gradients(fids, gradients, 1.0F));
    std::vector<std::int64_t> counts_alone(count), counts_shared(count);
    alone.counts(fids, counts_alone);
    shared.counts(fids, counts_shared);
    REQUIRE(counts_alone == counts_shared);
    REQUIRE(alone.slot_totals()[0].sights == shared.slot_totals()[0].sights);
  }
  is_over = true;
  reader.join();
}

// Two writers and two readers on few FIDs; what each call saw is held against the order of the writes.
//
// Each FID belongs to one writer. Its n-th write puts n into all columns, or, if n is divisible by 5, erases it. Ticks
// of one clock bracket every call. A read of write n is right if that write had begun when the read ended, and the next
// one had not ended before the read began; and no read may see an older write than one that ended before it began.
class History {
 public:
  static constexpr std::size_t kFids = 24;  // They share buckets with FIDs that come and go.
  static bool is_erasure(std::uint32_t n) { return n % 5 == 0; }

  struct Span {
    std::uint64_t begin, end;
  };
  struct Read {
    std::size_t fid;
    Span span;
    std::uint32_t seen;  // 0: absent.
  };

  std::uint64_t tick() { return clock_.fetch_add(1); }

  void write(Table& table, std::size_t writer, std::mt19937_64& random) {
    std::vector<std::int64_t> assigned, erased;
    std::vector<float> rows;
    std::vector<std::size_t> written;
    for (std::size_t fid = writer; fid < kFids; fid += 2) {
      if (random() % 2 == 0) continue;
      const auto n = static_cast<std::uint32_t>(writes_[fid].size() + 1);
      written.push_back(fid);
      if (is_erasure(n)) {
        erased.push_back(static_cast<std::int64_t>(fid));
      } else {
        assigned.push_back(static_cast<std::int64_t>(fid));
        rows.insert(rows.end(), kDim, static_cast<float>(n));
      }
    }
    const std::uint64_t begin = tick();
    table.assign(assigned, rows);
    table.erase(erased);
    const std::uint64_t end = tick();
    for (const std::size_t fid : written) writes_[fid].push_back({begin, end});
  }

  void read(const Table& table, std::size_t reader, std::mt19937_64& random) {
    std::array<std::int64_t, 48> fids;
    for (std::int64_t& fid : fids) fid = static_cast<std::int64_t>(random() % kFids);
    std::vector<float> out(fids.size() * kDim);
    const std::uint64_t begin = tick();
    table.lookup(fids, out);
    const std::uint64_t end = tick();
    for (std::size_t i = 0; i < fids.size(); ++i) {
      const float seen = out[i * kDim];
      for (std::size_t j = 1; j < kDim; ++j) REQUIRE(out[i * kDim + j] == seen);
      reads_[reader].push_back({static_cast<std::size_t>(fids[i]), {begin, end}, static_cast<std::uint32_t>(seen)});
    }
  }

  std::size_t read_count() const { return reads_[0].size() + reads_[1].size(); }

  void check() const {
    std::array<std::vector<Read>, kFids> by_fid;
    for (const auto& of_reader : reads_)
      for (const Read& read : of_reader) by_fid[read.fid].push_back(read);
    for (std::size_t fid = 0; fid < kFids; ++fid) {
      std::vector<Read>& reads = by_fid[fid];
      std::sort(reads.begin(), reads.end(), [](const Read& a, const Read& b) { return a.span.begin < b.span.begin; });
      std::vector<std::pair<std::uint64_t, std::uint32_t>> ended;  // By when it ended: the write that a read proves.
      for (const Read& read : reads) {
        const auto [oldest, newest] = seen_writes(fid, read);
        for (const auto& [end, n] : ended) REQUIRE(end >= read.span.begin || n <= newest);
        ended.push_back({read.span.end, oldest});
        if (ended.size() > 64) ended.erase(ended.begin());
      }
    }
  }

 private:
  // The oldest and the newest write that left what was read, and may have been the last at some instant of the read: it
  // had begun before the read ended, and the next had not ended before the read began. 0: before the first.
  std::pair<std::uint32_t, std::uint32_t> seen_writes(std::size_t fid, const Read& read) const {
    const auto& writes = writes_[fid];
    const auto position = [&](auto is_before) {
      return static_cast<std::uint32_t>(std::partition_point(writes.begin(), writes.end(), is_before) - writes.begin());
    };
    std::uint32_t oldest = position([&](const Span& write) { return write.end <= read.span.begin; });
    std::uint32_t newest = position([&](const Span& write) { return write.begin < read.span.end; });
    const auto shows = [&](std::uint32_t n) { return is_erasure(n) ? read.seen == 0 : read.seen == n; };
    while (oldest <= newest && !shows(oldest)) ++oldest;
    while (newest > oldest && !shows(newest)) --newest;
    REQUIRE(oldest <= newest);
    return {oldest, newest};
  }

  std::atomic<std::uint64_t> clock_{1};
  std::array<std::vector<Span>, kFids> writes_;
  std::array<std::vector<Read>, 2> reads_;
};

void test_histories_are_linearizable(std::uint64_t seed, double seconds) {
  Table table = make_table(seed);
  History history;
  std::atomic<bool> is_over{false};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed * 4 + t);
      for (int step = 0; step < 1000 && !is_over; ++step) history.write(table, t, random);
    });
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed * 4 + 2 + t);
      for (int step = 0; step < 1000 && !is_over; ++step) history.read(table, t, random);
    });
  }
  // Others come and go meanwhile, so that the watched FIDs move between buckets and segments.
  std::vector<std::int64_t> churned;
  for (std::int64_t i = 0; i < 4000; ++i) churned.push_back(1000 + i);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < end) {
    table.assign(churned, rows_of(churned));
    table.erase(churned);
    table.forget_epochs(table.advance_epoch());
  }
  is_over = true;
  for (std::thread& thread : threads) thread.join();
  REQUIRE(history.read_count() > 0);
  history.check();
}

}  // namespace

int main(int argument_count, char** arguments) {
  const double seconds = argument_count > 1 ? std::atof(arguments[1]) : 5.0;
  for (std::uint64_t seed = 0; seed < 6; ++seed) test_against_map(seed);
  for (std::uint64_t seed = 0; seed < 3; ++seed) test_row_set(seed);
  for (std::uint64_t seed = 0; seed < 50; ++seed) test_buckets_against_loops(seed);
  test_load_before_growth();
  test_reserve();
  test_expire_and_restore();
#ifndef DOLMEN_THREAD_SANITIZER  // Which has nothing to find there, and takes a minute.
  test_without_memory();
#endif
  test_readers_beside_a_writer(seconds);
  for (const auto precision : {dolmen::Precision::kFloat16, dolmen::Precision::kBfloat16, dolmen::Precision::kInt8}) {
    test_narrow_rows_beside_a_writer(precision, seconds / 10.0);
  }
  test_threads_that_share_a_batch(seconds / 2.0);
  test_upkeep_beside_readers(seconds);
  for (std::uint64_t seed = 0; seed < 5; ++seed) test_histories_are_linearizable(seed, seconds / 5.0);
  std::puts("native tests: ok");
}
