#include "row_store.hpp"

#include <algorithm>
#include <bit>
#include <new>
#include <type_traits>
#include <utility>

namespace dolmen {
namespace {

constexpr std::size_t kChunkSize = std::size_t{8} << 20;  // Of the wider arena; a few huge pages.
constexpr std::size_t kHalfLine = 32;
constexpr unsigned kChunkShiftMin = 10;
constexpr unsigned kChunkShiftMax = 18;
constexpr unsigned kRowBits = 32;

}  // namespace

RowStore::RowStore(std::uint32_t dim, std::uint32_t state_dim, Precision precision)
    : dim_(dim),
      state_dim_(state_dim),
      precision_(precision),
      is_state_beside_vector_((dim + std::size_t{state_dim}) * sizeof(float) % kHalfLine == 0),
      vector_stride_(with_precision(precision, [&](auto stored) { return stored.size(dim); }) +
                     (is_state_beside_vector_ ? state_dim * sizeof(float) : 0)),
      side_stride_(rounded_up(sizeof(RowFacts) + (is_state_beside_vector_ ? 0 : std::size_t{state_dim} * sizeof(float)),
                              alignof(RowFacts))) {
  const std::size_t fitting = kChunkSize / std::max(vector_stride_, side_stride_);
  chunk_shift_ = std::clamp(static_cast<unsigned>(std::bit_width(fitting)), kChunkShiftMin + 1, kChunkShiftMax + 1) - 1;
  ahead_ = static_cast<std::uint32_t>(std::min(kHugePage / vector_stride_, std::size_t{1} << chunk_shift_) / 2);
  chunk_addresses_ = Mapping((std::size_t{1} << (kRowBits - chunk_shift_)) * sizeof(Chunk), false);
  chunks_ = reinterpret_cast<Chunk*>(chunk_addresses_.data());
  encoded_.resize(vector_stride_ / sizeof(float));
}

void RowStore::write(std::uint32_t row, const float* vector) noexcept {
  auto* to = reinterpret_cast<float*>(memory(row));
  with_precision(precision_, [&](auto stored) {
    if constexpr (std::is_same_v<decltype(stored), Float32>) {
      copy_to_shared(to, vector, dim_);
    } else {
      stored.encode(reinterpret_cast<std::byte*>(encoded_.data()), vector, dim_);
      copy_to_shared(to, encoded_.data(), stored.size(dim_) / sizeof(float));
    }
  });
}

void RowStore::read(std::uint32_t row, float* out) const noexcept {
  with_precision(precision_, [&](auto stored) { stored.read(Portable(), out, memory(row), std::size_t{dim_}); });
}

std::size_t RowStore::memory_size() const noexcept {
  const std::size_t row_size = vector_stride_ + side_stride_;
  std::size_t size = live_.memory_size() + roomy_.capacity() * sizeof(std::uint64_t);
  for (std::size_t i = 0; i < owned_.size(); ++i) {
    if (owned_[i].is_given_back) continue;
    // The last chunk is written from below, page by page.
    const std::size_t rows_below = i << chunk_shift_;
    const std::size_t row_count = std::size_t{1} << chunk_shift_;
    size += row_size * std::min(row_count, row_end_ > rows_below ? row_end_ - rows_below : 0);
  }
  return size;
}

void RowStore::add_chunk() {
  const std::size_t row_count = std::size_t{1} << chunk_shift_;
  // A small table should not hold huge pages: its first chunk fills page by page.
  const bool is_huge = !owned_.empty();
  owned_.reserve(owned_.size() + 1);
  const std::size_t first_word = row_max() / 64;
  const std::size_t word_end = first_word + row_count / 64;
  live_.make_room(word_end * 64);
  roomy_.resize((word_end + 63) / 64, 0);
  Owned owned{Mapping(row_count * vector_stride_, is_huge), Mapping(row_count * side_stride_, is_huge)};
  chunks_[owned_.size()].vectors.store(owned.vectors.data());
  chunks_[owned_.size()].sides.store(owned.sides.data());
  owned_.push_back(std::move(owned));
  roomy_hint_ = std::min(roomy_hint_, first_word / 64);
  for (std::size_t i = first_word; i < word_end; ++i) {
    roomy_[i / 64] |= std::uint64_t{1} << (i % 64);
  }
}

std::uint32_t RowStore::allocate() {
  while (roomy_hint_ < roomy_.size() && roomy_[roomy_hint_] == 0) ++roomy_hint_;
  if (roomy_hint_ == roomy_.size()) {
    if (row_max() >= (std::uint64_t{1} << kRowBits) - 1) throw std::bad_alloc();
    add_chunk();
    while (roomy_[roomy_hint_] == 0) ++roomy_hint_;
  }
  const std::size_t word = roomy_hint_ * 64 + static_cast<std::size_t>(std::countr_zero(roomy_[roomy_hint_]));
  const auto row = static_cast<std::uint32_t>(word * 64 + static_cast<std::size_t>(std::countr_one(live_.word(word))));
  call_in_side_ahead(row);
  mark_live(row);
  return row;
}

// The kernel clears a huge page when it is first written, which takes it milliseconds. A page of the sides is written
// half a page of vectors before it is needed, so that a call of few rows waits for one of the two at most.
void RowStore::call_in_side_ahead(std::uint32_t row) {
  const std::uint64_t ahead = std::uint64_t{row} + ahead_;
  if (ahead >= std::uint64_t{1} << kRowBits) return;
  if (ahead >= row_max()) add_chunk();
  std::atomic<std::int64_t>& first = facts(static_cast<std::uint32_t>(ahead)).fid;
  if (reinterpret_cast<std::uintptr_t>(&first) % kHugePage < side_stride_) {
    first.fetch_or(0, std::memory_order_relaxed);  // A write that changes nothing: the row may be live.
  }
}

std::uint32_t RowStore::allocate(std::uint32_t row) {
  reserve(row);
  mark_live(row);
  return row;
}

void RowStore::reserve(std::uint32_t row) {
  const std::size_t before = owned_.size();
  try {
    while (row >= row_max()) add_chunk();
  } catch (...) {
    // No row of these chunks was ever given out.
    for (std::size_t i = (before << chunk_shift_) / 64; i < roomy_.size() * 64; ++i) {
      roomy_[i / 64] &= ~(std::uint64_t{1} << (i % 64));
    }
    owned_.erase(owned_.begin() + static_cast<std::ptrdiff_t>(before), owned_.end());
    throw;
  }
}

void RowStore::mark_live(std::uint32_t row) noexcept {
  live_.set(row);
  if (~live_.word(row / 64) == 0) roomy_[row / 64 / 64] &= ~(std::uint64_t{1} << (row / 64 % 64));
  Owned& owned = owned_[row >> chunk_shift_];
  owned.live_count += 1;
  owned.is_given_back = false;
  live_count_ += 1;
  row_end_ = std::max(row_end_, row + 1);
}

void RowStore::release(std::uint32_t row) noexcept {
  live_.clear(row);
  roomy_[row / 64 / 64] |= std::uint64_t{1} << (row / 64 % 64);
  roomy_hint_ = std::min(roomy_hint_, std::size_t{row} / 64 / 64);
  live_count_ -= 1;
  if (row + 1 == row_end_) {
    std::size_t word = row / 64 + 1;
    while (word > 0 && live_.word(word - 1) == 0) --word;
    row_end_ =
        word == 0
            ? 0
            : static_cast<std::uint32_t>(word * 64 - static_cast<std::size_t>(std::countl_zero(live_.word(word - 1))));
  }
  Owned& owned = owned_[row >> chunk_shift_];
  owned.live_count -= 1;
  if (owned.live_count == 0) {
    owned.vectors.give_back();
    owned.sides.give_back();
    owned.is_given_back = true;
  }
}

std::uint32_t RowStore::next_live(std::uint32_t row) const noexcept {
  if (row >= row_end_) return row_end_;
  std::size_t word = row / 64;
  std::uint64_t bits = live_.word(word) & (~std::uint64_t{0} << (row % 64));
  while (bits == 0) bits = live_.word(++word);  // Ends: row_end() - 1 is live.
  return static_cast<std::uint32_t>(word * 64 + static_cast<std::size_t>(std::countr_zero(bits)));
}

}  // namespace dolmen
