// One batch shared out among threads.
//
// Threads are started for the batch and end with it: that takes some tens of microseconds each, so small batches stay
// with their caller. In return nothing is left running between batches, nothing breaks after a fork, and readers from
// many threads do not queue for a pool.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <exception>
#include <span>
#include <thread>

namespace dolmen {

inline constexpr std::size_t kThreadsMax = 64;
inline constexpr std::size_t kShareMin = 2048;  // FIDs that are worth a thread.

inline std::size_t share_count_of(std::size_t fid_count, std::size_t thread_count) noexcept {
  return std::clamp<std::size_t>(fid_count / kShareMin, 1, thread_count);
}

// Which part of a batch is the share's, for work that can be cut anywhere.
struct Stretch {
  std::size_t begin, count;
};
inline Stretch stretch_of(std::size_t fid_count, std::size_t share, std::size_t share_count) noexcept {
  const std::size_t begin = fid_count * share / share_count;
  return {begin, fid_count * (share + 1) / share_count - begin};
}

// Calls `work(share)` for each share below `share_count` (at most kThreadsMax), all at once; `work` must not throw.
// Where the system has no thread to give, or no memory for one, the caller does that share as well.
template <typename Work>
void in_parallel(std::size_t share_count, const Work& work) noexcept {
  std::array<std::thread, kThreadsMax> threads;
  for (std::size_t share = 1; share < share_count; ++share) {
    try {
      threads[share] = std::thread([&work, share] { work(share); });
    } catch (const std::exception&) {
      work(share);
    }
  }
  work(0);
  for (std::thread& thread : threads) {
    if (thread.joinable()) thread.join();
  }
}

}  // namespace dolmen
