// Rows as columns: how they are handed in and out.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

namespace dolmen {

// The caller owns the memory. `row_numbers` and `epochs` carry what makes a restored table go on alike.
template <bool is_const>
struct RowColumns {
  template <typename T>
  using Column = std::span<std::conditional_t<is_const, const T, T>>;
  Column<std::int64_t> fids;
  Column<float> vectors, states;
  Column<std::int64_t> last_seen_us, counts;
  Column<std::uint32_t> epochs, row_numbers;
};

}  // namespace dolmen
