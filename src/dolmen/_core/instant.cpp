#include "instant.hpp"

#include <algorithm>
#include <bit>
#include <new>

namespace dolmen {

Instant::Instant(const RowStore& rows, const std::vector<std::uint64_t>& due)
    : rows_(rows),
      row_end_(static_cast<std::uint32_t>(std::min<std::size_t>(due.size() * 64, 0xFFFFFFFFU))),
      saved_size_(
          rounded_up(sizeof(Saved) + (std::size_t{rows.dim()} + rows.state_dim()) * sizeof(float), alignof(Saved))),
      due_(due.size()),
      heads_(due.size(), nullptr) {
  for (std::size_t i = 0; i < due.size(); ++i) due_[i].store(due[i], std::memory_order_relaxed);
}

void Instant::save_aside(std::uint32_t row) noexcept {
  const std::size_t word = row / 64;
  const std::uint64_t bit = std::uint64_t{1} << (row % 64);
  const std::lock_guard lock(guard(word));
  if ((due_[word].load(std::memory_order_relaxed) & bit) == 0) return;  // A reader has passed by meanwhile.
  try {
    Saved* place = take_place();
    const View view = view_of(row);
    *place = {view.fid, view.last_seen_us, view.count, view.epoch, row, heads_[word]};
    auto* values = reinterpret_cast<float*>(place + 1);
    rows_.read(row, values);
    std::copy_n(view.state, rows_.state_dim(), values + rows_.dim());
    heads_[word] = place;
  } catch (const std::bad_alloc&) {
    is_incomplete_.store(true);  // Learning goes on; it is the copy that fails.
  }
  due_[word].fetch_and(~bit, std::memory_order_release);
}

Instant::Progress Instant::read(std::uint32_t begin, std::uint32_t end, const RowColumns<false>& columns) {
  const std::uint32_t stop = std::min(end, row_end_);
  std::size_t count = 0;
  while (begin < stop) {
    const std::size_t word = begin / 64;
    const std::lock_guard lock(guard(word));
    if (is_incomplete_.load()) throw std::bad_alloc();
    std::array<const Saved*, 64> places{};
    std::uint64_t bits = due_[word].load(std::memory_order_relaxed);
    const std::uint64_t untouched = bits;
    for (const Saved* place = heads_[word]; place != nullptr; place = place->next) {
      places[place->row % 64] = place;
      bits |= std::uint64_t{1} << (place->row % 64);
    }
    bits &= ~std::uint64_t{0} << (begin % 64);
    if (stop / 64 == word) bits &= (std::uint64_t{1} << (stop % 64)) - 1;
    std::uint64_t taken = 0;
    for (; bits != 0 && count < columns.fids.size(); bits &= bits - 1, ++count) {
      const auto lane = static_cast<unsigned>(std::countr_zero(bits));
      const std::uint64_t bit = std::uint64_t{1} << lane;
      const bool is_here = (untouched & bit) != 0;
      put(is_here ? view_of(static_cast<std::uint32_t>(word * 64 + lane)) : view_of(*places[lane]), columns, count);
      taken |= bit;
    }
    due_[word].fetch_and(~taken, std::memory_order_release);
    for (Saved** link = &heads_[word]; *link != nullptr;) {
      Saved* place = *link;
      if ((taken >> (place->row % 64) & 1) != 0) {
        *link = place->next;
        give_place(place);
      } else {
        link = &place->next;
      }
    }
    if (bits != 0) {
      return {count, static_cast<std::uint32_t>(word * 64 + static_cast<std::size_t>(std::countr_zero(bits)))};
    }
    begin = static_cast<std::uint32_t>(std::min<std::size_t>(stop, word * 64 + 64));
  }
  return {count, end};
}

Instant::Saved* Instant::take_place() {
  const std::lock_guard lock(places_);
  if (free_ != nullptr) {
    Saved* place = free_;
    free_ = place->next;
    return place;
  }
  if (used_count_ == kBlockRows) {
    blocks_.push_back(std::make_unique_for_overwrite<std::byte[]>(kBlockRows * saved_size_));
    used_count_ = 0;
  }
  return ::new (blocks_.back().get() + used_count_++ * saved_size_) Saved;
}

void Instant::give_place(Saved* place) noexcept {
  const std::lock_guard lock(places_);
  place->next = free_;
  free_ = place;
}

Instant::View Instant::view_of(std::uint32_t row) const noexcept {
  const RowFacts& facts = rows_.facts(row);
  return {facts.fid.load(std::memory_order_relaxed),
          facts.last_seen_us.load(std::memory_order_relaxed),
          facts.count.load(std::memory_order_relaxed),
          facts.epoch.load(std::memory_order_relaxed),
          row,
          nullptr,
          rows_.state(row)};
}

Instant::View Instant::view_of(const Saved& saved) const noexcept {
  const auto* values = reinterpret_cast<const float*>(&saved + 1);
  return {saved.fid, saved.last_seen_us, saved.count, saved.epoch, saved.row, values, values + rows_.dim()};
}

void Instant::put(const View& view, const RowColumns<false>& columns, std::size_t i) const noexcept {
  columns.fids[i] = view.fid;
  float* vector = columns.vectors.data() + i * rows_.dim();
  if (view.vector == nullptr) {
    rows_.read(view.row, vector);
  } else {
    std::copy_n(view.vector, rows_.dim(), vector);
  }
  std::copy_n(view.state, rows_.state_dim(), columns.states.data() + i * rows_.state_dim());
  columns.last_seen_us[i] = view.last_seen_us;
  columns.counts[i] = view.count;
  columns.epochs[i] = view.epoch;
  columns.row_numbers[i] = view.row;
}

}  // namespace dolmen
