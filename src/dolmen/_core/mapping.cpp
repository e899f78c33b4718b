#include "mapping.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <utility>

namespace dolmen {

Mapping::Mapping(std::size_t size, bool is_huge) : size_(rounded_up(size, kPage)) {
  // To begin on a huge page, map one more than needed and cut off both ends.
  const std::size_t spare = is_huge ? kHugePage : 0;
  void* memory =
      mmap(nullptr, size_ + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(memory);
  if (!is_huge) return;
  const std::size_t before =
      rounded_up(reinterpret_cast<std::uintptr_t>(data_), kHugePage) - reinterpret_cast<std::uintptr_t>(data_);
  if (before > 0) munmap(data_, before);
  if (spare > before) munmap(data_ + before + size_, spare - before);
  data_ += before;
#ifdef MADV_HUGEPAGE
  madvise(data_, size_, MADV_HUGEPAGE);
#endif
}

Mapping::~Mapping() {
  if (data_ != nullptr) munmap(data_, size_);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void Mapping::give_back() const noexcept {
  madvise(data_, size_, MADV_DONTNEED);
}

std::byte* PieceArena::allocate(std::size_t size) {
  const std::size_t needed = size / kUnit;
  for (std::size_t r = 0;; ++r) {
    if (r == regions_.size()) {
      // A small table should not hold huge pages: the first region is small and fills page by page.
      const bool is_first = regions_.empty();
      const std::size_t unit_count = is_first ? kFirstRegionUnits : kRegionUnits;
      regions_.push_back({Mapping(unit_count * kUnit, !is_first), std::vector<bool>(unit_count)});
    }
    Region& region = regions_[r];
    std::size_t free_count = 0;
    if (region.used.size() - region.used_count < needed) continue;
    for (std::size_t i = 0; i < region.used.size(); ++i) {
      free_count = region.used[i] ? 0 : free_count + 1;
      if (free_count < needed) continue;
      const std::size_t begin = i + 1 - needed;
      std::fill_n(region.used.begin() + static_cast<std::ptrdiff_t>(begin), needed, true);
      region.used_count += needed;
      region.touched_count = std::max(region.touched_count, i + 1);
      return region.mapping.data() + begin * kUnit;
    }
  }
}

void PieceArena::free(std::byte* piece, std::size_t size) noexcept {
  for (Region& region : regions_) {
    if (piece < region.mapping.data() || piece >= region.mapping.data() + region.mapping.size()) continue;
    const std::size_t begin = static_cast<std::size_t>(piece - region.mapping.data()) / kUnit;
    std::fill_n(region.used.begin() + static_cast<std::ptrdiff_t>(begin), size / kUnit, false);
    region.used_count -= size / kUnit;
    if (region.used_count == 0) {
      region.mapping.give_back();
      region.touched_count = 0;
    }
    return;
  }
}

std::size_t PieceArena::memory_size() const noexcept {
  std::size_t size = 0;
  for (const Region& region : regions_) size += region.touched_count * kUnit;
  return size;
}

}  // namespace dolmen
