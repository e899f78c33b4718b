// How near the table comes to the physical bound of a keyed read: one random index line, then the row.
//
// Usage: table_speed ROWS DIM BATCH REPEATS uniform|zipf THREADS; prints one JSON object with every repeat's keys/s.
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

struct alignas(64) Line {
  std::uint64_t words[8];
};

void prefetch(const void* begin, std::size_t size) {
  for (std::size_t at = 0; at < size; at += 64) __builtin_prefetch(static_cast<const char*>(begin) + at);
}

// The bound: for each key a random line, whose content the row's address depends on, then the row.
template <typename Use>
void bound_loop(const std::vector<std::uint32_t>& lines_of, const std::vector<std::uint32_t>& rows_of,
                const Line* lines, const float* rows, std::size_t row_floats, const Use& use) {
  const std::size_t count = rows_of.size();
  std::array<std::size_t, 2 * kAhead> ready{};
  for (std::size_t i = 0; i < count + 2 * kAhead; ++i) {
    if (i < count) __builtin_prefetch(lines + lines_of[i]);
    if (i >= kAhead && i < count + kAhead) {
      const std::size_t at = i - kAhead;
      const std::size_t row = rows_of[at] + lines[lines_of[at]].words[0];  // The words are 0.
      ready[at % (2 * kAhead)] = row;
      prefetch(rows + row * row_floats, row_floats * sizeof(float));
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

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 7) return 2;
  const std::size_t row_count = std::strtoull(arguments[1], nullptr, 10);
  const auto dim = static_cast<std::uint32_t>(std::strtoul(arguments[2], nullptr, 10));
  const std::size_t batch = std::strtoull(arguments[3], nullptr, 10);
  const std::size_t repeat_count = std::strtoull(arguments[4], nullptr, 10);
  const bool is_zipf = std::string(arguments[5]) == "zipf";
  const std::size_t thread_count = std::strtoull(arguments[6], nullptr, 10);

  std::mt19937_64 random(1);
  dolmen::Table table({dim, 1, 2, 0.01F}, dolmen::AdaGrad{0.05F, 0.1F, 1e-8F, 0.0F});
  std::vector<std::int64_t> all_fids(row_count);
  for (std::size_t i = 0; i < row_count; ++i) {
    all_fids[i] = static_cast<std::int64_t>(dolmen::mix64(i) >> 11);
  }
  const double build_seconds = seconds_of([&] {
    constexpr std::size_t kBuildBatch = 65'536;
    std::vector<float> out(kBuildBatch * dim);
    for (std::size_t begin = 0; begin < row_count; begin += kBuildBatch) {
      const std::size_t count = std::min(kBuildBatch, row_count - begin);
      table.lookup_or_insert(std::span(all_fids).subspan(begin, count), 1, std::span(out).first(count * dim));
    }
  });

  const std::size_t line_count = static_cast<std::size_t>(static_cast<double>(row_count) / 5.0 / kIndexLoad);
  const HugeArray<Line> lines(line_count);
  const HugeArray<float> rows(row_count * dim);
  const HugeArray<float> rows_and_states(row_count * dim * 2);

  // One set of batches for each thread; every contender reads them in the same order.
  struct Work {
    std::vector<std::uint32_t> row_numbers, line_numbers;
    std::vector<std::int64_t> fids;
    std::vector<float> out, gradients;
  };
  std::vector<std::uint32_t> rank_to_row(row_count);
  std::iota(rank_to_row.begin(), rank_to_row.end(), 0U);
  std::shuffle(rank_to_row.begin(), rank_to_row.end(), random);
  constexpr std::size_t kBatchCount = 4;
  std::vector<std::vector<Work>> work(thread_count, std::vector<Work>(kBatchCount));
  for (auto& of_thread : work) {
    for (Work& each : of_thread) {
      for (std::size_t i = 0; i < batch; ++i) {
        const std::size_t rank =
            is_zipf ? zipf_rank(std::uniform_real_distribution<>()(random), static_cast<double>(row_count))
                    : random() % row_count;
        const std::uint32_t row = rank_to_row[rank];
        each.row_numbers.push_back(row);
        each.line_numbers.push_back(static_cast<std::uint32_t>(dolmen::mix64(row) % line_count));
        each.fids.push_back(all_fids[row]);
      }
      each.out.resize(batch * dim);
      each.gradients.assign(batch * dim, 0.001F);
    }
  }

  std::map<std::string, std::function<void(Work&)>> contenders;
  contenders["bound_lookup"] = [&](Work& w) {
    bound_loop(w.line_numbers, w.row_numbers, lines.data(), rows.data(), dim, [&](std::size_t i, std::size_t row) {
      std::memcpy(&w.out[i * dim], rows.data() + row * dim, dim * sizeof(float));
    });
  };
  contenders["gather"] = [&](Work& w) {
    for (std::size_t i = 0; i < batch; ++i) {
      if (i + kAhead < batch) prefetch(rows.data() + w.row_numbers[i + kAhead] * std::size_t{dim}, dim * sizeof(float));
      std::memcpy(&w.out[i * dim], rows.data() + w.row_numbers[i] * std::size_t{dim}, dim * sizeof(float));
    }
  };
  contenders["table_lookup"] = [&](Work& w) { table.lookup(w.fids, w.out); };
  if (thread_count == 1) {
    contenders["bound_update"] = [&](Work& w) {
      float* all = rows_and_states.data();
      const std::size_t width = std::size_t{dim} * 2;
      bound_loop(w.line_numbers, w.row_numbers, lines.data(), all, width, [&](std::size_t i, std::size_t row) {
        float* at = all + row * width;
        const float* gradient = &w.gradients[i * dim];
        for (std::size_t j = 0; j < dim; ++j) {
          at[j] += gradient[j];
          at[dim + j] += gradient[j];
        }
      });
    };
    contenders["table_update"] = [&](Work& w) { table.apply_gradients(w.fids, w.gradients, 1.0F); };
    contenders["table_lookup_or_insert"] = [&](Work& w) { table.lookup_or_insert(w.fids, 2, w.out); };
  }

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

  const dolmen::MemorySizes memory = table.memory();
  std::printf("{\"rows\": %zu, \"dim\": %u, \"batch\": %zu, \"ids\": \"%s\", \"threads\": %zu, ", row_count, dim, batch,
              arguments[5], thread_count);
  std::printf("\"build_keys_per_second\": %.0f, \"index_bytes_per_row\": %.2f, \"row_bytes_per_row\": %.2f, ",
              static_cast<double>(row_count) / build_seconds,
              static_cast<double>(memory.index) / static_cast<double>(row_count),
              static_cast<double>(memory.rows) / static_cast<double>(row_count));
  std::printf("\"checksum\": %.6f, \"keys_per_second\": {", checksum);
  const char* separator = "";
  for (const auto& [name, values] : rates) {
    std::printf("%s\"%s\": [", separator, name.c_str());
    for (std::size_t i = 0; i < values.size(); ++i) std::printf("%s%.0f", i == 0 ? "" : ", ", values[i]);
    std::printf("]");
    separator = ", ";
  }
  std::puts("}}");
}
