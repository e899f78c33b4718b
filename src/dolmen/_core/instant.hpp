// The rows of a table as they were at one instant, read while the table goes on.
//
// At that instant one bit a row is copied: the row is due. Whoever comes to a due row first takes it. A reader copies
// it out as it passes by; a writer, before its first change to it, saves a copy where the reader will find it. So a row
// is copied once, a row that nobody changes costs the writer nothing, and no writer waits longer than for the copying
// of the 64 rows that share a word of bits.
//
// Threads: `save` by those that change the table; `read` by any number, each in a stretch of words of its own.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "row_columns.hpp"
#include "row_store.hpp"

namespace dolmen {

class Instant {
 public:
  // `due`: one bit a row, by row number. The store must outlive this.
  Instant(const RowStore& rows, const std::vector<std::uint64_t>& due);

  std::uint32_t row_end() const noexcept { return row_end_; }  // No row at or above it is, or was, due.

  // Must be called before each change to a row, its removal included.
  void save(std::uint32_t row) noexcept {
    if (row < row_end_ && (due_[row / 64].load(std::memory_order_acquire) >> (row % 64) & 1) != 0) save_aside(row);
  }

  // Takes rows in [begin, end), in order, until the columns are full. Returns how many, and where to go on (`end`:
  // done). Each row is given out once. Throws std::bad_alloc where a writer found no memory to save a row.
  struct Progress {
    std::size_t count;
    std::uint32_t next;
  };
  Progress read(std::uint32_t begin, std::uint32_t end, const RowColumns<false>& columns);

 private:
  static constexpr std::size_t kBlockRows = 512;

  // A saved row; `values` floats (vector, then state) follow it.
  struct Saved {
    std::int64_t fid, last_seen_us, count;
    std::uint32_t epoch, row;
    Saved* next;  // Of the same word, or of the free ones.
  };
  struct View {
    std::int64_t fid, last_seen_us, count;
    std::uint32_t epoch, row;
    const float* vector;  // Null: as it is in the store.
    const float* state;
  };

  void save_aside(std::uint32_t row) noexcept;
  Saved* take_place();
  void give_place(Saved* place) noexcept;
  View view_of(std::uint32_t row) const noexcept;
  View view_of(const Saved& saved) const noexcept;
  void put(const View& view, const RowColumns<false>& columns, std::size_t i) const noexcept;
  std::mutex& guard(std::size_t word) noexcept { return guards_[word % guards_.size()]; }

  const RowStore& rows_;
  std::uint32_t row_end_;
  std::size_t saved_size_;
  std::vector<std::atomic<std::uint64_t>> due_;  // Cleared once the row is taken. Under the word's guard.
  std::vector<Saved*> heads_;                    // By word: the row saved last. Under the word's guard.
  std::array<std::mutex, 64> guards_;
  std::atomic<bool> is_incomplete_{false};
  std::mutex places_;  // Of what follows. Taken after a word's guard.
  std::vector<std::unique_ptr<std::byte[]>> blocks_;
  std::size_t used_count_ = kBlockRows;  // Of the last block's places.
  Saved* free_ = nullptr;
};

}  // namespace dolmen
