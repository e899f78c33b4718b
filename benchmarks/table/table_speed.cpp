// How near the table comes to the physical bound of a keyed read: one random index line, then the row.
//
// Usage: table_speed speed ROWS DIM BATCH REPEATS   one JSON line each for uniform and Zipf ids, 1 and 2 threads
//        table_speed threads ROWS DIM BATCH REPEATS two threads that share each batch, beside one: the bound and the table
//        table_speed growth ROWS DIM STATE BATCH    grows from empty: pauses, memory; STATE: adagrad | rowwise_adagrad
// All contenders run interleaved, on the same ids, in the same page mode; checksums show that the work was done.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "in_parallel.hpp"
#include "table.hpp"

namespace {

constexpr std::size_t kAhead = 24;
constexpr double kIndexLoad = 0.9;

// An array in huge pages where the system allows it, as the table's own arenas are.
template <typename T>
class HugeArray {
 public:
  explicit HugeArray(std::size_t count) : mapping_(count * sizeof(T), true), count_(count) {
    std::memset(mapping_.data(), 0, count * sizeof(T));
  }
  T* data() const { return reinterpret_cast<T*>(mapping_.data()); }

 private:
  dolmen::Mapping mapping_;
  std::size_t count_;
};

std::int64_t fid_of(std::uint64_t i) { return static_cast<std::int64_t>(dolmen::mix64(i) >> 11); }

// An index without a search: so full that each FID stands in a bucket that is known ahead.
void fill_buckets(const HugeArray<dolmen::Bucket>& buckets, std::size_t bucket_count,
                  std::vector<std::uint32_t>& bucket_of) {
  std::vector<std::uint32_t> order(bucket_of.size());
  std::iota(order.begin(), order.end(), 0U);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
  for (std::size_t i = 0; i < order.size(); ++i) {
    dolmen::Bucket& bucket = buckets.data()[i % bucket_count];
    bucket_of[order[i]] = static_cast<std::uint32_t>(i % bucket_count);
    bucket.rows[i / bucket_count] = order[i];
    bucket.fids[i / bucket_count] = fid_of(order[i]);
  }
}

struct alignas(64) Line {
  std::uint64_t words[8];
};

using Piece = float __attribute__((vector_size(32), aligned(alignof(float)), may_alias));
constexpr std::size_t kPiece = sizeof(Piece) / sizeof(float);

// Inlined: the compiler takes a call that does nothing but prefetch for one that does nothing.
DOLMEN_INLINE void prefetch(const void* begin, std::size_t size) {
  for (std::size_t at = 0; at < size; at += 64) __builtin_prefetch(static_cast<const char*>(begin) + at);
}

// The bound: for each key a random line, whose content the row's address depends on, then the row. `line_of(i)` is its
// address, `row_of(i)` reads it and says which row, `use(i, row)` comes last.
template <typename LineOf, typename RowOf, typename Use>
DOLMEN_INLINE void bound_loop(std::size_t count, const LineOf& line_of, const RowOf& row_of, const float* rows,
                              std::size_t stride, std::size_t read_floats, const Use& use) {
  std::array<std::size_t, 2 * kAhead> ready{};
  for (std::size_t i = 0; i < count + 2 * kAhead; ++i) {
    if (i < count) __builtin_prefetch(line_of(i));
    if (i >= kAhead && i < count + kAhead) {
      const std::size_t row = row_of(i - kAhead);
      ready[(i - kAhead) % (2 * kAhead)] = row;
      prefetch(rows + row * stride, read_floats * sizeof(float));
    }
    if (i >= 2 * kAhead) use(i - 2 * kAhead, ready[(i - 2 * kAhead) % (2 * kAhead)]);
  }
}

// Of the processor, not of the wall: the machine may be shared.
double thread_seconds_of(const std::function<void()>& work) {
  const auto now = [] {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double begin = now();
  work();
  return now() - begin;
}

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Ranks by Zipf's law with exponent 1.05, by inverting the integral of its density.
std::uint32_t zipf_rank(double uniform, double count) {
  constexpr double kPower = 1.0 - 1.05;
  const double top = std::pow(count + 1.0, kPower);
  const double rank = std::pow(1.0 + uniform * (top - 1.0), 1.0 / kPower);
  return static_cast<std::uint32_t>(std::min(rank, count) - 1.0);
}

// The row numbers that a batch asks for: one draw of ids, the same for every contender and every peer.
class Draws {
 public:
  Draws(std::size_t row_count, bool is_zipf, std::uint64_t seed) : random_(seed), is_zipf_(is_zipf), count_(row_count) {
    if (!is_zipf_) return;
    rank_to_row_.resize(row_count);
    std::iota(rank_to_row_.begin(), rank_to_row_.end(), 0U);
    std::shuffle(rank_to_row_.begin(), rank_to_row_.end(), random_);
  }
  std::uint32_t next() {
    if (!is_zipf_) return static_cast<std::uint32_t>(random_() % count_);
    const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;
    return rank_to_row_[zipf_rank(uniform, static_cast<double>(count_))];
  }

 private:
  std::mt19937_64 random_;
  bool is_zipf_;
  std::size_t count_;
  std::vector<std::uint32_t> rank_to_row_;
};

std::size_t resident_size() {
  std::size_t total_pages = 0;
  std::size_t resident_pages = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%zu %zu", &total_pages, &resident_pages) != 2) resident_pages = 0;
    std::fclose(file);
  }
  return resident_pages * 4096;
}

dolmen::Optimizer optimizer_of(bool is_rowwise) {
  if (is_rowwise) return dolmen::RowwiseAdaGrad{0.05F, 0.1F, 1e-8F, 0.0F};
  return dolmen::AdaGrad{0.05F, 0.1F, 1e-8F, 0.0F};
}

// One set of batches for each thread; every contender reads them in the same order.
struct Work {
  std::vector<std::uint32_t> row_numbers, line_numbers, bucket_numbers;
  std::vector<std::int64_t> fids;
  std::vector<float> out, gradients;
};

// The table, the bound, and what lies between them: each contender does all that the one before it does, and something
// more that the table does. The width is a constant for all, as it is in the table's own loops.
template <std::uint32_t dim>
class Contest {
 public:
  using Contender = std::function<void(Work&)>;

  explicit Contest(std::size_t row_count)
      : line_count_(static_cast<std::size_t>(static_cast<double>(row_count) / 5.0 / kIndexLoad)),
        table_({dim, 1, 2, 0.01F}, optimizer_of(false)),
        lines_(line_count_),
        buckets_(line_count_),
        bucket_of_(row_count),
        rows_(row_count * kWidth) {
    fill_buckets(buckets_, line_count_, bucket_of_);
    constexpr std::size_t kBuildBatch = 65'536;
    std::vector<float> out(kBuildBatch * dim);
    std::vector<std::int64_t> fids(kBuildBatch);
    for (std::size_t begin = 0; begin < row_count; begin += kBuildBatch) {
      const std::size_t count = std::min(kBuildBatch, row_count - begin);
      for (std::size_t i = 0; i < count; ++i) fids[i] = fid_of(begin + i);
      table_.lookup_or_insert(std::span(fids).first(count), 1, std::span(out).first(count * dim));
    }
  }

  Work draw(Draws& draws, std::size_t batch) const {
    Work work;
    for (std::size_t i = 0; i < batch; ++i) {
      const std::uint32_t row = draws.next();
      work.row_numbers.push_back(row);
      work.line_numbers.push_back(static_cast<std::uint32_t>(dolmen::mix64(row) % line_count_));
      work.bucket_numbers.push_back(bucket_of_[row]);
      work.fids.push_back(fid_of(row));
    }
    work.out.resize(batch * dim);
    work.gradients.assign(batch * dim, 0.001F);
    return work;
  }

  std::map<std::string, Contender> lookups() {
    return {
        {"gather", [&](Work& w) { gather(w); }},
        {"bound_lookup", [&](Work& w) { known(w, dim, dim, copying(w, dim)); }},
        {"lookup_spread", [&](Work& w) { known(w, kWidth, dim, copying(w, kWidth)); }},
        {"lookup_keyed", [&](Work& w) { keyed<false>(w, dim, copying(w, kWidth)); }},
        {"lookup_hashed", [&](Work& w) { keyed<true>(w, dim, copying(w, kWidth)); }},
        {"table_lookup", [&](Work& w) { table_.lookup(w.fids, w.out); }},
    };
  }

  std::map<std::string, Contender> updates() {
    return {
        {"bound_update", [&](Work& w) { known(w, kWidth, kWidth, adding(w)); }},
        {"update_adagrad", [&](Work& w) { known(w, kWidth, kWidth, stepping(w)); }},
        {"update_stamped",
         [&](Work& w) {
           const auto step = stepping(w);
           keyed<false>(w, kWidth, [&, step](std::size_t i, std::size_t row) DOLMEN_INLINED {
             const dolmen::Change change(buckets_.data()[w.bucket_numbers[i]].version);
             step(i, row);
           });
         }},
        {"table_update", [&](Work& w) { table_.apply_gradients(w.fids, w.gradients, 1.0F); }},
        {"table_lookup_or_insert", [&](Work& w) { table_.lookup_or_insert(w.fids, 2, w.out); }},
    };
  }

  dolmen::MemorySizes memory() const { return table_.memory(); }
  void set_thread_count(std::size_t count) { table_.set_thread_count(count); }

 private:
  static constexpr std::size_t kWidth = 2 * std::size_t{dim};  // Row and state.

  void gather(Work& w) const {
    const auto at = [&](std::size_t i) { return rows_.data() + w.row_numbers[i] * std::size_t{dim}; };
    dolmen::with_processor([&](auto) DOLMEN_INLINED {
      for (std::size_t i = 0; i < w.fids.size(); ++i) {
        if (i + kAhead < w.fids.size()) prefetch(at(i + kAhead), dim * sizeof(float));
        dolmen::copy_from_shared(&w.out[i * dim], at(i), dim);
      }
    });
  }

  // Lines and rows are known; all that the line tells is 0.
  template <typename Use>
  void known(const Work& w, std::size_t stride, std::size_t read_floats, const Use& use) const {
    dolmen::with_processor([&](auto) DOLMEN_INLINED {
      const auto line = [&](std::size_t i) DOLMEN_INLINED { return &lines_.data()[w.line_numbers[i]]; };
      const auto row = [&](std::size_t i) DOLMEN_INLINED { return w.row_numbers[i] + line(i)->words[0]; };
      bound_loop(w.fids.size(), line, row, rows_.data(), stride, read_floats, use);
    });
  }

  // The line is known, and tells by the FID which row. A hash decides nothing, but the compiler can't know that.
  template <bool is_hashed, typename Use>
  void keyed(const Work& w, std::size_t read_floats, const Use& use) const {
    dolmen::with_processor([&](auto processor) DOLMEN_INLINED {
      const auto bucket = [&](std::size_t i) DOLMEN_INLINED {
        const bool is_one = is_hashed && dolmen::mix64(static_cast<std::uint64_t>(w.fids[i])) == 1;
        return &buckets_.data()[w.bucket_numbers[i] + (is_one ? 1 : 0)];
      };
      const auto row = [&](std::size_t i) DOLMEN_INLINED {
        const dolmen::Bucket& at = buckets_.data()[w.bucket_numbers[i]];
        return at.row(dolmen::lane_of(processor, at, w.fids[i]));
      };
      bound_loop(w.fids.size(), bucket, row, rows_.data(), kWidth, read_floats, use);
    });
  }

  auto copying(Work& w, std::size_t stride) const {
    return [rows = rows_.data(), out = w.out.data(), stride](std::size_t i, std::size_t row)
               DOLMEN_INLINED { dolmen::copy_from_shared(out + i * dim, rows + row * stride, dim); };
  }

  auto adding(const Work& w) const {
    return [rows = rows_.data(), gradients = w.gradients.data()](std::size_t i, std::size_t row) DOLMEN_INLINED {
      for (std::size_t j = 0; j < dim; j += kPiece) {
        const Piece gradient = *reinterpret_cast<const Piece*>(gradients + i * dim + j);
        *reinterpret_cast<Piece*>(rows + row * kWidth + j) += gradient;
        *reinterpret_cast<Piece*>(rows + row * kWidth + dim + j) += gradient;
      }
    };
  }

  auto stepping(const Work& w) const {
    return [rows = rows_.data(), gradients = w.gradients.data()](std::size_t i, std::size_t row) DOLMEN_INLINED {
      float* vector = rows + row * kWidth;
      dolmen::AdaGrad{0.05F, 0.1F, 1e-8F, 0.0F}.step({vector, vector + dim, gradients + i * dim, dim, 1.0F, 1});
    };
  }

  std::size_t line_count_;
  dolmen::Table table_;
  HugeArray<Line> lines_;
  HugeArray<dolmen::Bucket> buckets_;
  std::vector<std::uint32_t> bucket_of_;
  HugeArray<float> rows_;  // A look-up's stand in the first half, where nothing is said of states.
};

// `{"name": [rate, ...], ...}`, whole numbers.
void print_rates(const std::map<std::string, std::vector<double>>& all) {
  const char* separator = "{";
  for (const auto& [name, rates] : all) {
    std::printf("%s\"%s\": [", separator, name.c_str());
    for (std::size_t i = 0; i < rates.size(); ++i) std::printf("%s%.0f", i == 0 ? "" : ", ", rates[i]);
    std::printf("]");
    separator = ", ";
  }
  std::printf("}");
}

template <std::uint32_t dim>
void measure_speed(std::size_t row_count, std::size_t batch, std::size_t repeat_count) {
  constexpr std::size_t kBatchCount = 4;
  Contest<dim> contest(row_count);
  for (const bool is_zipf : {false, true}) {
    for (const std::size_t thread_count : {std::size_t{1}, std::size_t{2}}) {
      Draws draws(row_count, is_zipf, 1);
      std::vector<std::vector<Work>> work(thread_count);
      for (auto& of_thread : work) {
        for (std::size_t i = 0; i < kBatchCount; ++i) of_thread.push_back(contest.draw(draws, batch));
      }
      auto contenders = contest.lookups();
      if (thread_count == 1) contenders.merge(contest.updates());
      std::map<std::string, std::vector<double>> rates;
      double checksum = 0.0;
      for (std::size_t repeat = 0; repeat <= repeat_count; ++repeat) {  // The first warms up.
        for (const auto& [name, run] : contenders) {
          std::vector<double> seconds(thread_count);
          std::vector<std::thread> threads;
          for (std::size_t t = 0; t < thread_count; ++t) {
            threads.emplace_back([&, t, &run = run] {
              seconds[t] = thread_seconds_of([&] {
                for (Work& each : work[t]) run(each);
              });
            });
          }
          for (std::thread& thread : threads) thread.join();
          for (const auto& of_thread : work) checksum += of_thread[0].out[0] + of_thread.back().out.back();
          if (repeat > 0)
            rates[name].push_back(static_cast<double>(thread_count * kBatchCount * batch) /
                                  *std::max_element(seconds.begin(), seconds.end()));
        }
      }
      const dolmen::MemorySizes memory = contest.memory();
      std::printf("{\"rows\": %zu, \"dim\": %u, \"batch\": %zu, \"ids\": \"%s\", \"threads\": %zu, ", row_count, dim,
                  batch, is_zipf ? "zipf" : "uniform", thread_count);
      std::printf("\"index_bytes_per_row\": %.2f, \"row_bytes_per_row\": %.2f, ",
                  static_cast<double>(memory.index) / static_cast<double>(row_count),
                  static_cast<double>(memory.rows) / static_cast<double>(row_count));
      std::printf("\"checksum\": %.6f, \"keys_per_second\": ", checksum);
      print_rates(rates);
      std::puts("}");
      std::fflush(stdout);
    }
  }
}

// What one of the threads that share a batch does of it: those `is_mine(i)`.
template <std::uint32_t dim, typename IsMine>
Work part_of(const Work& all, const IsMine& is_mine) {
  Work part;
  for (std::size_t i = 0; i < all.fids.size(); ++i) {
    if (!is_mine(i)) continue;
    part.row_numbers.push_back(all.row_numbers[i]);
    part.line_numbers.push_back(all.line_numbers[i]);
    part.bucket_numbers.push_back(all.bucket_numbers[i]);
    part.fids.push_back(all.fids[i]);
  }
  part.out.resize(part.fids.size() * dim);
  part.gradients.assign(part.fids.size() * dim, 0.001F);
  return part;
}

// On the wall, since what counts is when the last thread is ready. The bound's threads are started for each batch, as the
// table's are; they read a stretch each, and step the rows whose FID's hash falls to them, so that no two step one row.
template <std::uint32_t dim>
void measure_threads(std::size_t row_count, std::size_t batch, std::size_t repeat_count) {
  constexpr std::size_t kBatchCount = 4;
  constexpr std::array<std::size_t, 2> kThreadCounts{1, 2};
  Contest<dim> contest(row_count);
  const auto bound_lookup = contest.lookups().at("bound_lookup");
  const auto bound_update = contest.updates().at("bound_update");
  const auto table_lookup = contest.lookups().at("table_lookup");
  const auto table_update = contest.updates().at("table_update");
  for (const bool is_zipf : {false, true}) {
    Draws draws(row_count, is_zipf, 1);
    struct Shared {
      Work all;
      std::vector<Work> stretches, shares;  // By thread.
    };
    std::array<std::vector<Shared>, kThreadCounts.size()> batches;  // By how many threads share each.
    for (std::size_t b = 0; b < kBatchCount; ++b) {
      const Work all = contest.draw(draws, batch);
      for (std::size_t n = 0; n < kThreadCounts.size(); ++n) {
        Shared& shared = batches[n].emplace_back(Shared{all, {}, {}});
        for (std::size_t thread = 0; thread < kThreadCounts[n]; ++thread) {
          const auto stretch = dolmen::stretch_of(batch, thread, kThreadCounts[n]);
          shared.stretches.push_back(
              part_of<dim>(all, [&](std::size_t i) { return i >= stretch.begin && i < stretch.begin + stretch.count; }));
          shared.shares.push_back(part_of<dim>(all, [&](std::size_t i) {
            return dolmen::mix64(static_cast<std::uint64_t>(all.fids[i])) % kThreadCounts[n] == thread;
          }));
        }
      }
    }
    const auto in_threads = [](std::vector<Work>& parts, const typename Contest<dim>::Contender& run) {
      dolmen::in_parallel(parts.size(), [&](std::size_t thread) { run(parts[thread]); });
    };
    const std::map<std::string, std::function<void(Shared&)>> contenders{
        {"bound_lookup", [&](Shared& shared) { in_threads(shared.stretches, bound_lookup); }},
        {"bound_update", [&](Shared& shared) { in_threads(shared.shares, bound_update); }},
        {"table_lookup", [&](Shared& shared) { table_lookup(shared.all); }},
        {"table_update", [&](Shared& shared) { table_update(shared.all); }},
    };
    std::array<std::map<std::string, std::vector<double>>, kThreadCounts.size()> rates;
    double checksum = 0.0;
    for (std::size_t repeat = 0; repeat <= repeat_count; ++repeat) {  // The first warms up.
      for (const auto& [name, run] : contenders) {
        for (std::size_t n = 0; n < kThreadCounts.size(); ++n) {
          contest.set_thread_count(kThreadCounts[n]);
          const double seconds = seconds_of([&, &run = run] {
            for (Shared& shared : batches[n]) run(shared);
          });
          checksum += batches[n][0].all.out[0] + batches[n][0].stretches.back().out.back();
          if (repeat > 0) rates[n][name].push_back(static_cast<double>(kBatchCount * batch) / seconds);
        }
      }
    }
    for (std::size_t n = 0; n < kThreadCounts.size(); ++n) {
      std::printf("{\"rows\": %zu, \"dim\": %u, \"batch\": %zu, \"ids\": \"%s\", \"threads\": %zu, ", row_count, dim,
                  batch, is_zipf ? "zipf" : "uniform", kThreadCounts[n]);
      std::printf("\"checksum\": %.6f, \"keys_per_second\": ", checksum);
      print_rates(rates[n]);
      std::puts("}");
    }
    std::fflush(stdout);
  }
}

// Every call is timed, on the wall (which other programs disturb) and by its thread's processor time.
void measure_growth(std::size_t row_count, std::uint32_t dim, bool is_rowwise, std::size_t batch) {
  const std::size_t resident_before = resident_size();
  dolmen::Table table({dim, 1, 2, 0.01F}, optimizer_of(is_rowwise));
  std::vector<std::int64_t> fids(batch);
  std::vector<float> out(batch * dim);
  std::vector<double> wall, processor;
  wall.reserve(row_count / batch + 1);
  processor.reserve(row_count / batch + 1);
  for (std::size_t begin = 0; begin < row_count; begin += batch) {
    const std::size_t count = std::min(batch, row_count - begin);
    for (std::size_t i = 0; i < count; ++i) fids[i] = fid_of(begin + i);
    double of_thread = 0.0;
    wall.push_back(seconds_of([&] {
      of_thread = thread_seconds_of(
          [&] { table.lookup_or_insert(std::span(fids).first(count), 1, std::span(out).first(count * dim)); });
    }));
    processor.push_back(of_thread);
  }
  const std::size_t resident_after = resident_size() - 2 * wall.capacity() * sizeof(double);
  const double build_seconds = std::accumulate(processor.begin(), processor.end(), 0.0);
  const dolmen::MemorySizes memory = table.memory();
  std::mt19937_64 random(1);
  std::vector<std::int64_t> some(65'536);
  for (std::int64_t& fid : some) fid = fid_of(random() % row_count);
  std::vector<float> rows(some.size() * dim, 0.001F);
  const double update_seconds = thread_seconds_of([&] { table.apply_gradients(some, rows, 1.0F); });
  const double lookup_seconds = thread_seconds_of([&] { table.lookup(some, rows); });
  const auto share_of = [](std::vector<double>& times, double share) {
    const auto at = static_cast<std::ptrdiff_t>(share * static_cast<double>(times.size() - 1));
    std::nth_element(times.begin(), times.begin() + at, times.end());
    return times[static_cast<std::size_t>(at)] * 1e3;
  };
  const std::size_t state_dim = is_rowwise ? 1 : dim;
  std::printf("{\"rows\": %zu, \"dim\": %u, \"optimizer\": \"%s\", \"batch\": %zu, ", row_count, dim,
              is_rowwise ? "rowwise_adagrad" : "adagrad", batch);
  std::printf("\"inserts_per_second\": %.0f, ", static_cast<double>(row_count) / build_seconds);
  for (auto& [name, times] : {std::pair{"wall", std::ref(wall)}, std::pair{"processor", std::ref(processor)}}) {
    std::printf("\"%s_ms\": {\"p50\": %.4f, \"p99.9\": %.4f, \"longest\": %.4f}, ", name, share_of(times.get(), 0.5),
                share_of(times.get(), 0.999), share_of(times.get(), 1.0));
  }
  const auto per_row = [&](std::size_t size) { return static_cast<double>(size) / static_cast<double>(row_count); };
  std::printf("\"resident_bytes_per_row\": %.2f, \"index_bytes_per_row\": %.2f, \"row_bytes_per_row\": %.2f, ",
              per_row(resident_after - resident_before), per_row(memory.index), per_row(memory.rows));
  std::printf("\"payload_bytes_per_row\": %zu, \"resident_bytes\": %zu, ",
              sizeof(std::int64_t) + (dim + state_dim) * sizeof(float), resident_after);
  std::printf("\"updates_per_second\": %.0f, \"lookups_per_second\": %.0f, \"checksum\": %.6f}\n",
              static_cast<double>(some.size()) / update_seconds, static_cast<double>(some.size()) / lookup_seconds,
              static_cast<double>(rows[0] + rows.back()));
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 6) return 2;
  const std::string what = arguments[1];
  const std::size_t row_count = std::strtoull(arguments[2], nullptr, 10);
  const auto dim = static_cast<std::uint32_t>(std::strtoul(arguments[3], nullptr, 10));
  const std::size_t last = std::strtoull(arguments[5], nullptr, 10);
  if (what == "speed" || what == "threads") {
    using Measure = void (*)(std::size_t, std::size_t, std::size_t);
    const std::map<std::uint32_t, std::pair<Measure, Measure>> of_dim{
        {8, {measure_speed<8>, measure_threads<8>}},
        {16, {measure_speed<16>, measure_threads<16>}},
        {32, {measure_speed<32>, measure_threads<32>}},
        {64, {measure_speed<64>, measure_threads<64>}},
        {128, {measure_speed<128>, measure_threads<128>}},
    };
    const auto measures = of_dim.find(dim);
    if (measures == of_dim.end()) return 2;
    const Measure measure = what == "speed" ? measures->second.first : measures->second.second;
    measure(row_count, std::strtoull(arguments[4], nullptr, 10), last);
  } else {
    measure_growth(row_count, dim, std::string(arguments[4]) == "rowwise_adagrad", last);
  }
}
