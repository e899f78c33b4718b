// Calls that run out of memory, at the first allocation, then at the second, until they get through: rows to restore
// come all or not at all, and whatever else a call has done by then, the next delta tells of it.
#include <algorithm>
#include <atomic>
#include <functional>
#include <new>
#include <numeric>

#include "in_parallel.hpp"
#include "mapping.hpp"
#include "native_tests.hpp"

namespace {

constexpr long kNoBound = -1;
std::atomic<long> allocations_left{kNoBound};

bool may_allocate() noexcept {
  long left = allocations_left.load();
  while (left > 0 && !allocations_left.compare_exchange_weak(left, left - 1)) {
  }
  return left != 0;
}

}  // namespace

// For all of this program. Memory that comes from the system in pages, or aligned (the index), has no bound here. Not inlined, or compilers
// would miss that they belong together.
[[gnu::noinline]] void* operator new(std::size_t size) {
  void* memory = may_allocate() ? std::malloc(size > 0 ? size : 1) : nullptr;
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto step = static_cast<std::size_t>(alignment);
  void* memory = may_allocate() ? std::aligned_alloc(step, dolmen::rounded_up(size, step)) : nullptr;
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using dolmen::Table;

constexpr std::int64_t kOldCount = 1500;

// Some FIDs that are there and more that are not; some of them twice. Enough for two threads to share.
std::vector<std::int64_t> mixed_fids() {
  std::vector<std::int64_t> fids(2 * dolmen::kShareMin + 100);
  for (std::size_t i = 0; i < fids.size(); ++i) fids[i] = kOldCount / 2 + static_cast<std::int64_t>(i % 4000);
  return fids;
}

std::vector<std::int64_t> numbers_from(std::int64_t begin, std::size_t count) {
  std::vector<std::int64_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), begin);
  return numbers;
}

std::vector<std::int64_t> sorted_fids(std::vector<std::int64_t> fids) {
  std::ranges::sort(fids);
  return fids;
}

std::vector<float> vectors_of(const Table& table, const std::vector<std::int64_t>& fids) {
  std::vector<float> vectors(fids.size() * kDim);
  table.lookup(fids, vectors);
  return vectors;
}

// All rows were made in epochs that are remembered, so a delta since the first of them has each, as it is now.
void require_delta_of_all(Table& table) {
  const Delta delta = delta_since(table, 0);
  REQUIRE(sorted_fids(delta.fids) == sorted_fids(table.fids_of(0)));
  REQUIRE(delta.fids.size() == table.size());
  REQUIRE(delta.vectors == vectors_of(table, delta.fids));
  REQUIRE(table.slot_totals()[0].rows == static_cast<std::int64_t>(table.size()));
}

// `call` on a table without memory after the n-th allocation, for every n at which it fails.
void fail_each_allocation(const std::function<void(Table&)>& call, bool is_all_or_nothing) {
  long failed_count = 0;
  for (bool is_done = false; !is_done; ++failed_count) {
    Table table({kDim, 1, 7, 0.01F}, dolmen::AdaGrad{0.05F, 0.1F, 1e-8F, 0.0F});
    table.set_thread_count(2);
    table.set_capacity({1'000'000, dolmen::Eviction::kLru, 0});
    const std::vector<std::int64_t> old = numbers_from(0, kOldCount);
    table.assign(old, rows_of(old));
    table.advance_epoch();
    allocations_left = failed_count;
    try {
      call(table);
      is_done = true;
    } catch (const std::bad_alloc&) {
      is_done = false;
    }
    allocations_left = kNoBound;
    if (!is_done && is_all_or_nothing) {
      REQUIRE(sorted_fids(table.fids_of(0)) == old);
      REQUIRE(vectors_of(table, old) == rows_of(old));
    }
    require_delta_of_all(table);
    // Rows that now get the numbers which the call gave back are told of like any other.
    const std::vector<std::int64_t> fresh = numbers_from(1'000'000, 3000);
    std::vector<float> out(fresh.size() * kDim);
    table.lookup_or_insert(fresh, 1, out);
    table.apply_gradients(fresh, out, 1.0F);
    require_delta_of_all(table);
    if (!is_done) call(table);
    require_delta_of_all(table);
    for (const std::int64_t fid : table.fids_of(0)) REQUIRE(fid < 10'000 || fid >= 1'000'000);
  }
  REQUIRE(failed_count > 3);  // There was something to fail.
}

}  // namespace

void test_without_memory() {
  const std::vector<std::int64_t> fids = mixed_fids();
  const std::vector<float> gradients = rows_of(fids, 0.5F);
  fail_each_allocation(
      [&](Table& table) {
        std::vector<float> out = gradients;
        table.lookup_or_insert(fids, 1, out);
        table.apply_gradients(fids, gradients, 1.0F);
      },
      false);
  fail_each_allocation([&](Table& table) { table.assign(fids, gradients); }, false);
  const std::vector<std::int64_t> fresh = numbers_from(5000, 3000), ones(fresh.size(), 1);
  const std::vector<float> vectors = rows_of(fresh);
  const std::vector<std::uint32_t> epochs(fresh.size(), 1);
  std::vector<std::uint32_t> row_numbers(fresh.size());
  std::iota(row_numbers.rbegin(), row_numbers.rend(), 500'000U);
  fail_each_allocation(
      [&](Table& table) { REQUIRE(table.restore_rows({fresh, vectors, vectors, ones, ones, {}, {}})); }, true);
  fail_each_allocation(
      [&](Table& table) { REQUIRE(table.restore_rows({fresh, vectors, vectors, ones, ones, epochs, row_numbers})); },
      true);
}
