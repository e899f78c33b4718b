// Where rows live: arenas in large chunks whose addresses never change.
//
// A row is in two places: its vector in one arena, and its facts (FID, age, count, epoch) in another, since a look-up
// reads only the first. The optimiser's state stands behind the vector where both together fill cache lines well, since
// a step then touches the fewest lines; an odd state (one float a row) stands behind the facts, so that it does not
// push the vectors across line ends. Vectors may be kept narrower than float32 where there is no state. The free row
// with the lowest number is used first, so after an expiry the highest chunks empty, and an empty chunk's memory goes
// back to the system. The numbering follows from the set of live rows alone, which lets a loaded table go on exactly as
// the saved one would have.
//
// One writer calls all; any thread may read a row's vector and `RowFacts` under the version stamp of its index bucket
// (a chunk stays mapped while the store lives, so a stale row number reads nonsense, never a fault).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "mapping.hpp"
#include "precision.hpp"
#include "row_bits.hpp"

namespace dolmen {

inline constexpr std::uint32_t kNoEpoch = 0xFFFFFFFFU;
inline constexpr std::uint32_t kCountMax = 0xFFFFFFFFU;

struct RowFacts {
  std::atomic<std::int64_t> fid;
  std::atomic<std::int64_t> last_seen_us;
  std::atomic<std::uint32_t> count;  // Of sights; stays at kCountMax once it is there.
  std::atomic<std::uint32_t> epoch;  // In which the row was last touched, or kNoEpoch.
};
static_assert(sizeof(RowFacts) == 24);

class RowStore {
  struct Chunk {
    std::atomic<std::byte*> vectors, sides;
  };

 public:
  RowStore(std::uint32_t dim, std::uint32_t state_dim, Precision precision = Precision::kFloat32);

  std::uint32_t dim() const noexcept { return dim_; }
  std::uint32_t state_dim() const noexcept { return state_dim_; }
  Precision precision() const noexcept { return precision_; }
  std::size_t live_count() const noexcept { return live_count_; }
  std::uint32_t row_end() const noexcept { return row_end_; }                     // Above the highest live row.
  std::size_t row_max() const noexcept { return owned_.size() << chunk_shift_; }  // Above any row given out so far.
  std::size_t memory_size() const noexcept;

  // The lowest free row, or `row` itself, which must be free. Its contents are undefined. May throw std::bad_alloc.
  std::uint32_t allocate();
  std::uint32_t allocate(std::uint32_t row);  // This one, which is free. Returns it.
  void reserve(std::uint32_t row);            // Room for it and all below; as before where there is none.
  void release(std::uint32_t row) noexcept;
  bool is_live(std::uint32_t row) const noexcept { return row < row_end_ && live_.test(row); }
  const RowBits& live() const noexcept { return live_; }
  // The first live row that is not below `row`, or row_end().
  std::uint32_t next_live(std::uint32_t row) const noexcept;

  // The vector as float32, whatever it is stored as. Who writes where others may read stamps the row's bucket.
  void write(std::uint32_t row, const float* vector) noexcept;
  void read(std::uint32_t row, float* out) const noexcept;
  // Where it is stored.
  std::byte* memory(std::uint32_t row) const noexcept {
    return chunk(row).vectors.load(std::memory_order_relaxed) + offset(row) * vector_stride_;
  }
  // The vector itself, of a store of float32.
  float* vector(std::uint32_t row) const noexcept { return reinterpret_cast<float*>(memory(row)); }
  // Where vectors are, as a copy that a loop can keep in registers.
  class Vectors {
   public:
    explicit Vectors(const RowStore& rows) noexcept
        : chunks_(rows.chunks_), stride_(rows.vector_stride_), shift_(rows.chunk_shift_), mask_((1U << shift_) - 1) {}
    std::byte* operator[](std::uint32_t row) const noexcept {
      return chunks_[row >> shift_].vectors.load(std::memory_order_relaxed) + (row & mask_) * stride_;
    }

   private:
    const Chunk* chunks_;
    std::size_t stride_;
    unsigned shift_;
    std::uint32_t mask_;
  };
  Vectors vectors() const noexcept { return Vectors(*this); }
  // The bytes from `vector` on that an optimiser's step touches.
  std::size_t vector_stride() const noexcept { return vector_stride_; }
  RowFacts& facts(std::uint32_t row) const noexcept {
    return *reinterpret_cast<RowFacts*>(chunk(row).sides.load(std::memory_order_relaxed) + offset(row) * side_stride_);
  }
  float* state(std::uint32_t row) const noexcept {
    return is_state_beside_vector_ ? vector(row) + dim_ : reinterpret_cast<float*>(&facts(row) + 1);
  }
  bool is_state_beside_vector() const noexcept { return is_state_beside_vector_; }

 private:
  struct Owned {
    Mapping vectors, sides;
    std::uint32_t live_count = 0;
    bool is_given_back = true;  // Nothing in it has been written since it came from the system.
  };

  const Chunk& chunk(std::uint32_t row) const noexcept { return chunks_[row >> chunk_shift_]; }
  std::size_t offset(std::uint32_t row) const noexcept { return row & ((1U << chunk_shift_) - 1); }
  void add_chunk();
  void call_in_side_ahead(std::uint32_t row);
  void mark_live(std::uint32_t row) noexcept;

  std::uint32_t dim_, state_dim_;
  Precision precision_;
  bool is_state_beside_vector_;
  std::size_t vector_stride_, side_stride_;
  unsigned chunk_shift_;
  std::uint32_t ahead_;      // So many rows early a page of the sides is called in.
  Mapping chunk_addresses_;  // Reserved for all the chunks there can be, so that readers see it never move.
  Chunk* chunks_;
  std::vector<Owned> owned_;
  std::vector<float> encoded_;  // Where `write` makes what it stores.
  RowBits live_;
  std::vector<std::uint64_t> roomy_;  // One bit a word of `live_`: a row of it is free.
  std::uint32_t row_end_ = 0;
  std::size_t live_count_ = 0;
  std::size_t roomy_hint_ = 0;  // No word of `roomy_` below this one has a bit set.
};

}  // namespace dolmen
