// Memory straight from the system, and an arena of pieces of it that share huge pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dolmen {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

constexpr std::size_t rounded_up(std::size_t size, std::size_t step) noexcept {
  return (size + step - 1) / step * step;
}

// Memory from the system in one piece, zero until written.
class Mapping {
 public:
  Mapping() = default;
  explicit Mapping(std::size_t size, bool is_huge);
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;

  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  void give_back() const noexcept;  // Contents are zero or as before; the address stays good.

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Pieces of a few 16 KiB units each, cut first-fit from large regions: with huge pages a random access finds its
// address translation in the processor, with small ones it would have to fetch that from memory first.
class PieceArena {
 public:
  static constexpr std::size_t kUnit = std::size_t{16} << 10;

  std::byte* allocate(std::size_t size);  // A multiple of kUnit, at most a region. May throw std::bad_alloc.
  void free(std::byte* piece, std::size_t size) noexcept;
  std::size_t memory_size() const noexcept;  // Of units that have been used since their region was last empty.

 private:
  static constexpr std::size_t kFirstRegionUnits = 128;
  static constexpr std::size_t kRegionUnits = 1024;
  struct Region {
    Mapping mapping;
    std::vector<bool> used;
    std::size_t used_count = 0;
    std::size_t touched_count = 0;  // Units from the start that may hold memory.
  };
  std::vector<Region> regions_;
};

}  // namespace dolmen
