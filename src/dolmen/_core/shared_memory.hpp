// How one writer and many readers share memory without locks: words, version stamps, and safe freeing.
//
// A version stamp (seqlock) is even while its data rest and odd while they change. A reader takes the stamp, copies,
// and takes it again: if it was odd or has moved, what it copied may be torn, and it starts over.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#define DOLMEN_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DOLMEN_THREAD_SANITIZER 1
#endif
#endif

namespace dolmen {

// Plain copies are what makes rows fast to read; every compiler we use keeps them between the fences below. The thread
// sanitizer knows no fences and wants each shared word atomic, so under it the same copies go word by word.
#ifdef DOLMEN_THREAD_SANITIZER
inline void fence_acquire() noexcept {}
inline void fence_release() noexcept {}
inline void store_shared(float* to, float value) noexcept {
  __atomic_store(to, &value, __ATOMIC_RELEASE);
}
inline void copy_from_shared(float* to, const float* from, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) __atomic_load(from + i, to + i, __ATOMIC_ACQUIRE);
}
// Whole words of shared memory that may be read as bytes: a copy, until this thread asks for the next.
inline const std::byte* steady(const std::byte* from, std::size_t size) {
  thread_local std::vector<float> copy;
  copy.resize(size / sizeof(float));
  copy_from_shared(copy.data(), reinterpret_cast<const float*>(from), copy.size());
  return reinterpret_cast<const std::byte*>(copy.data());
}
#else
inline void fence_acquire() noexcept {
  std::atomic_thread_fence(std::memory_order_acquire);
}
inline void fence_release() noexcept {
  std::atomic_thread_fence(std::memory_order_release);
}
inline void store_shared(float* to, float value) noexcept {
  *to = value;
}
// Of one piece with the loop around it, and in the widest pieces that the processor it is compiled for has.
[[gnu::always_inline]] inline void copy_from_shared(float* to, const float* from, std::size_t count) noexcept {
  using Piece = float __attribute__((vector_size(32), aligned(alignof(float)), may_alias));
  constexpr std::size_t kPiece = sizeof(Piece) / sizeof(float);
  std::size_t i = 0;
  for (; i + kPiece <= count; i += kPiece) {
    *reinterpret_cast<Piece*>(to + i) = *reinterpret_cast<const Piece*>(from + i);
  }
  for (; i < count; ++i) to[i] = from[i];
}
inline const std::byte* steady(const std::byte* from, std::size_t) noexcept {
  return from;
}
#endif

inline void copy_to_shared(float* to, const float* from, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) store_shared(to + i, from[i]);
}

// Makes a version stamp odd for the time of one change. `has_rivals`: other threads may be changing what the same stamp
// guards; they wait for each other then.
class Change {
 public:
  explicit Change(std::atomic<std::uint32_t>& version, bool has_rivals = false) noexcept : version_(version) {
    if (has_rivals) {
      std::uint32_t even = version_.load(std::memory_order_relaxed) & ~1U;
      while (!version_.compare_exchange_weak(even, even + 1, std::memory_order_acquire, std::memory_order_relaxed)) {
        even &= ~1U;
      }
    } else {
      version_.store(version_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    fence_release();
  }
  ~Change() { version_.store(version_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  std::atomic<std::uint32_t>& version_;
};

// Frees memory only after every reader that could still see it has left. Readers enter and leave once a batch.
// `Garbage` is freed by its destructor. Any thread: Visit. The one writer: retire, collect.
template <typename Garbage>
class Readers {
 public:
  class Visit {
   public:
    explicit Visit(const Readers& readers) noexcept : readers_(readers) {
      for (;;) {
        side_ = readers_.side_.load() & 1;
        readers_.present_[side_].count.fetch_add(1);
        if ((readers_.side_.load() & 1) == side_) return;
        readers_.present_[side_].count.fetch_sub(1);  // The writer changed sides meanwhile.
      }
    }
    ~Visit() { readers_.present_[side_].count.fetch_sub(1); }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    const Readers& readers_;
    std::uint32_t side_ = 0;
  };

  void make_room() { fresh_.reserve(fresh_.size() + 2); }  // So that the next two calls of `retire` can't fail.
  void retire(Garbage garbage) { fresh_.push_back(std::move(garbage)); }

  // What was retired before the last change of sides goes once the readers of the former side have left.
  void collect() {
    for (int pass = 0; pass < 2; ++pass) {  // The second frees, where nobody reads, what the first made wait.
      if (fresh_.empty() && waiting_.empty()) return;
      const std::uint32_t side = side_.load() & 1;
      if (present_[side ^ 1].count.load() != 0) return;
      waiting_.clear();
      waiting_.swap(fresh_);
      side_.store(side ^ 1);
    }
  }

 private:
  struct alignas(64) Count {
    std::atomic<std::uint64_t> count{0};
  };
  mutable Count present_[2];
  std::atomic<std::uint32_t> side_{0};
  std::vector<Garbage> fresh_, waiting_;
};

}  // namespace dolmen
