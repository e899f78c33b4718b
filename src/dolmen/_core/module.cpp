// The Python face of the native core. It checks arguments and hands over memory; the work is in table.hpp.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "finite.hpp"
#include "hash.hpp"
#include "in_parallel.hpp"
#include "pooling.hpp"
#include "simhash.hpp"
#include "table.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using dolmen::Table;

template <typename T>
using Column = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Rows = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Fids = Column<const std::int64_t>;
using Sums = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

template <typename Array>
auto span_of(const Array& array) {
  return std::span(array.data(), array.size());
}

std::string shape_text(std::size_t rows, std::size_t columns) {
  return "(" + std::to_string(rows) + ", " + std::to_string(columns) + ")";
}

void require_not_negative(const Column<const std::int64_t>& column, const char* name) {
  const auto* bad =
      std::find_if(column.data(), column.data() + column.size(), [](std::int64_t one) { return one < 0; });
  if (bad == column.data() + column.size()) return;
  throw nb::value_error((std::string(name) + " must not be negative, got " + std::to_string(*bad) + " at position " +
                         std::to_string(bad - column.data()))
                            .c_str());
}

void require_fids(const Fids& fids, const char* name = "fids") {
  // The sign bit of all at once, so that the check costs one pass without branches.
  std::int64_t any = 0;
  for (const std::int64_t fid : span_of(fids)) any |= fid;
  if (any >= 0) return;
  const auto bad = std::find_if(fids.data(), fids.data() + fids.size(), [](std::int64_t fid) { return fid < 0; });
  throw nb::value_error((std::string(name) + " must not be negative, got " + std::to_string(*bad) + " at position " +
                         std::to_string(bad - fids.data()) + "; dolmen.features packs slot and value into a FID")
                            .c_str());
}

template <typename Array>
void require_shape(const Array& rows, std::size_t count, std::size_t width, const char* name,
                   const char* axes = "number of fids, dim") {
  if (rows.shape(0) == count && rows.shape(1) == width) return;
  throw nb::value_error((std::string(name) + " must have the shape " + shape_text(count, width) + " (" + axes +
                         "), got " + shape_text(rows.shape(0), rows.shape(1)))
                            .c_str());
}

// That each value is at least 0 and below `end`.
template <typename Array>
void require_below(const Array& values, std::size_t end, const char* name) {
  for (const std::int64_t value : span_of(values)) {
    if (static_cast<std::uint64_t>(value) < end) continue;
    throw nb::value_error(
        (std::string(name) + " must be at least 0 and below " + std::to_string(end) + ", got " + std::to_string(value))
            .c_str());
  }
}

template <typename Array>
void require_length(const Array& column, std::size_t count, const char* name) {
  if (column.size() == count) return;
  throw nb::value_error(
      (std::string(name) + " must have the length " + std::to_string(count) + ", got " + std::to_string(column.size()))
          .c_str());
}

std::string number_text(float number) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), number).ptr;
  return {text.data(), end};
}

std::string fid_text(std::int64_t fid) {
  const std::int64_t value = fid & ((std::int64_t{1} << dolmen::kFidValueBits) - 1);
  return "FID " + std::to_string(fid) + " (slot " + std::to_string(fid >> dolmen::kFidValueBits) + ", value " +
         std::to_string(value) + ")";
}

// Refuses `rows` (one for each FID) with a value that `is_bad`, by the first of them.
template <typename IsBad>
[[noreturn]] void refuse_rows(const Fids& fids, const Rows<const float>& rows, const char* name,
                              const std::string& expected, const IsBad& is_bad, const char* mend) {
  const float* bad = std::find_if(rows.data(), rows.data() + rows.size(), is_bad);
  const auto place = static_cast<std::size_t>(bad - rows.data());
  const std::size_t row = place / rows.shape(1);
  throw nb::value_error((std::string(name) + " must be " + expected + ", got " + number_text(*bad) + " at position " +
                         shape_text(row, place % rows.shape(1)) + ", of " + fid_text(fids.data()[row]) + "; " + mend)
                            .c_str());
}

bool is_not_finite(float value) {
  return !std::isfinite(value);
}

// Refuses gradients whose `largest` size is not finite, or such that a sum of the batch's could be beyond what the
// table's optimiser can take.
void require_learnable(const Table& table, const Fids& fids, const Rows<const float>& grads, float largest) {
  constexpr const char* kMend = "nothing was learned; leave the batch out, or mend the loss that it comes from";
  if (!std::isfinite(largest)) refuse_rows(fids, grads, "grads", "finite", is_not_finite, kMend);
  const double most = double{table.gradient_sum_max()} / static_cast<double>(fids.size() + 1);
  if (double{largest} <= most) return;
  refuse_rows(
      fids, grads, "grads",
      "at most " + number_text(static_cast<float>(most)) + " in size (what the optimizer can take, shared by the sum)",
      [&](float value) { return std::fabs(double{value}) > most; }, kMend);
}

void require_learnable(const Table& table, const Fids& fids, const Rows<const float>& grads) {
  float largest = 0.0F;
  {
    nb::gil_scoped_release unlocked;
    largest = dolmen::largest_size(span_of(grads));
  }
  require_learnable(table, fids, grads, largest);
}

void find_moving(const Table& table, const Fids& fids, const Rows<const float>& grads, const Column<bool>& out) {
  require_shape(grads, fids.size(), table.dim(), "grads");
  require_length(out, fids.size(), "out");
  float largest = 0.0F;
  {
    nb::gil_scoped_release unlocked;
    largest = dolmen::largest_size(span_of(grads), grads.shape(1), {out.data(), out.size()});
  }
  require_learnable(table, fids, grads, largest);
}

// The position of the first FID whose slot is not known, or how many FIDs there are. One pass without branches.
std::size_t first_foreign(const Fids& fids, const Column<const bool>& is_known) {
  require_length(is_known, dolmen::kSlotCount, "is_known");
  const auto is_foreign = [&](std::int64_t fid) {
    return !is_known.data()[static_cast<std::size_t>(fid >> dolmen::kFidValueBits) % dolmen::kSlotCount];
  };
  nb::gil_scoped_release unlocked;
  const auto all = span_of(fids);
  bool any = false;
  for (const std::int64_t fid : all) any |= is_foreign(fid);
  return any ? static_cast<std::size_t>(std::ranges::find_if(all, is_foreign) - all.begin()) : all.size();
}

void require_finite(const Fids& fids, const Rows<const float>& rows, const char* name, const char* mend) {
  float largest = 0.0F;
  {
    nb::gil_scoped_release unlocked;
    largest = dolmen::largest_size(span_of(rows));
  }
  if (!std::isfinite(largest)) refuse_rows(fids, rows, name, "finite", is_not_finite, mend);
}

// `is_finite`: somebody has looked, or the vectors are what a table held.
void check_delta(const Table& table, const Fids& fids, const Rows<const float>& vectors, const Fids& removed,
                 bool is_finite) {
  require_fids(fids);
  require_shape(vectors, fids.size(), table.dim(), "vectors");
  require_fids(removed, "removed");
  if (is_finite) return;
  require_finite(fids, vectors, "delta.vectors",
                 "nothing was taken over; learn or assign that row anew where the delta comes from");
}

// Whatever may wait for the writer's lock does so without Python's, or every reader would wait with it.
constexpr nb::call_guard<nb::gil_scoped_release> kWaits;

template <typename Call>
auto waited_for(const Call& call) {
  const nb::gil_scoped_release unlocked;
  return call();
}

// An array that owns what the vector held.
template <typename T>
nb::ndarray<nb::numpy, T> handed_over(std::vector<T>&& values, std::vector<std::size_t> shape) {
  auto* kept = new std::vector<T>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T>(kept->data(), shape.size(), shape.data(), owner);
}

template <typename T>
nb::ndarray<nb::numpy, T> handed_over(std::vector<T>&& values) {
  const std::size_t count = values.size();
  return handed_over(std::move(values), {count});
}

constexpr std::pair<const char*, dolmen::AdmissionKind> kAdmissions[] = {
    {"exact", dolmen::AdmissionKind::kExact},
    {"sketch", dolmen::AdmissionKind::kSketch},
    {"bloom", dolmen::AdmissionKind::kBloom},
    {"probabilistic", dolmen::AdmissionKind::kProbabilistic},
    {"proportional", dolmen::AdmissionKind::kProportional},
};
constexpr std::pair<const char*, dolmen::Precision> kPrecisions[] = {
    {"float32", dolmen::Precision::kFloat32},
    {"float16", dolmen::Precision::kFloat16},
    {"bfloat16", dolmen::Precision::kBfloat16},
    {"int8", dolmen::Precision::kInt8},
};
constexpr std::pair<const char*, dolmen::Eviction> kEvictions[] = {
    {"lru", dolmen::Eviction::kLru},
    {"lfu", dolmen::Eviction::kLfu},
    {"score", dolmen::Eviction::kScore},
};

template <typename Kinds>
auto kind_named(const Kinds& kinds, const std::string& name, const char* of) {
  for (const auto& [known, kind] : kinds) {
    if (name == known) return kind;
  }
  throw nb::value_error((std::string("unknown ") + of + " " + name).c_str());
}

// Whoever learns reads what it has written, to the last bit.
void require_learning(const Table& table) {
  if (table.precision() == dolmen::Precision::kFloat32) return;
  throw nb::value_error("a table whose precision is not float32 serves and never learns; rows come by apply_delta");
}

void require_slot(std::uint32_t slot) {
  if (slot >= dolmen::kSlotCount) throw nb::value_error("slot must be between 0 and 1023");
}

template <typename Out, typename Fill>
void fill_column(const Fids& fids, const Out& out, const Fill& fill) {
  require_fids(fids);
  require_length(out, fids.size(), "out");
  nb::gil_scoped_release unlocked;
  fill(span_of(fids), span_of(out));
}

auto hash_bytes(const Column<const std::uint8_t>& data, const Fids& offsets, std::uint64_t seed) {
  if (offsets.size() == 0) throw nb::value_error("offsets must hold one more entry than there are texts, got none");
  const auto ends = span_of(offsets);
  const bool is_sorted = std::is_sorted(ends.begin(), ends.end());
  if (!is_sorted || ends.front() < 0 || ends.back() > static_cast<std::int64_t>(data.size())) {
    throw nb::value_error(("offsets must rise from 0 or more to at most the size of data, " +
                           std::to_string(data.size()) + "; got " + std::to_string(ends.front()) + " to " +
                           std::to_string(ends.back()) + (is_sorted ? "" : " with a fall between"))
                              .c_str());
  }
  constexpr std::uint64_t kValueMask = (std::uint64_t{1} << dolmen::kFidValueBits) - 1;
  std::vector<std::int64_t> values(ends.size() - 1);
  {
    nb::gil_scoped_release unlocked;
    const auto bytes = span_of(data);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto begin = static_cast<std::size_t>(ends[i]);
      const auto size = static_cast<std::size_t>(ends[i + 1]) - begin;
      values[i] = static_cast<std::int64_t>(dolmen::xxh64(bytes.subspan(begin, size), seed) & kValueMask);
    }
  }
  return handed_over(std::move(values));
}

// An instant of a table, held by a Python object or a read under way. Letting go may wait for the writer's lock, which
// is done without Python's. Its holders have Python's lock whenever they touch it.
class Held {
 public:
  explicit Held(std::shared_ptr<dolmen::Instant> instant) noexcept : instant_(std::move(instant)) {}
  Held(const Held&) = default;
  Held(Held&&) noexcept = default;
  Held& operator=(const Held&) = delete;
  Held& operator=(Held&&) = delete;
  ~Held() { let_go(); }

  void let_go() noexcept {
    if (!instant_) return;
    auto last = std::move(instant_);  // Others may look at this object meanwhile.
    const nb::gil_scoped_release unlocked;
    last.reset();
  }
  explicit operator bool() const noexcept { return instant_ != nullptr; }
  dolmen::Instant* operator->() const noexcept { return instant_.get(); }

 private:
  std::shared_ptr<dolmen::Instant> instant_;
};

// What a Python object holds of a table at one instant.
struct AllRows {
  Held rows;  // Shared with the reads under way when it is closed.
  std::uint32_t dim, state_dim;
};

auto read_all_rows(const AllRows& held, std::uint32_t begin, std::uint32_t end, const Column<std::int64_t>& fids,
                   const Rows<float>& vectors, const Rows<float>& states, const Column<std::int64_t>& last_seen_us,
                   const Column<std::int64_t>& counts, const Column<std::uint32_t>& epochs,
                   const Column<std::uint32_t>& row_numbers) {
  if (!held.rows) throw nb::value_error("this instant of the table was closed; take another");
  const std::size_t count_max = fids.size();
  require_shape(vectors, count_max, held.dim, "vectors");
  require_shape(states, count_max, held.state_dim, "states");
  require_length(last_seen_us, count_max, "last_seen_us");
  require_length(counts, count_max, "counts");
  require_length(epochs, count_max, "epochs");
  require_length(row_numbers, count_max, "row_numbers");
  const Held rows = held.rows;
  nb::gil_scoped_release unlocked;
  const auto progress = rows->read(begin, end,
                                   {span_of(fids), span_of(vectors), span_of(states), span_of(last_seen_us),
                                    span_of(counts), span_of(epochs), span_of(row_numbers)});
  return std::pair(progress.count, progress.next);
}

struct HeldChanges {
  Held rows;
  std::uint32_t first, last;
  std::vector<std::int64_t> removed;
  std::uint32_t dim, state_dim;
};

// The vectors alone: optimiser state, counts and ages stay behind.
nb::tuple read_changes(HeldChanges& held) {
  constexpr std::size_t kStepRows = 1024;
  if (!held.rows) throw nb::value_error("these changes were read already; take them anew");
  Held rows = std::move(held.rows);  // Two reads at once would share the rows between them.
  const std::size_t dim = held.dim;
  std::vector<std::int64_t> fids;
  std::vector<float> vectors;
  {
    nb::gil_scoped_release unlocked;
    std::vector<std::int64_t> step_fids(kStepRows), last_seen_us(kStepRows), counts(kStepRows);
    std::vector<float> step_vectors(kStepRows * dim), states(kStepRows * std::size_t{held.state_dim});
    std::vector<std::uint32_t> epochs(kStepRows), row_numbers(kStepRows);
    for (std::uint32_t at = 0; at < rows->row_end();) {
      const auto progress =
          rows->read(at, rows->row_end(), {step_fids, step_vectors, states, last_seen_us, counts, epochs, row_numbers});
      for (std::size_t i = 0; i < progress.count; ++i) {
        if (epochs[i] < held.first || epochs[i] > held.last) continue;  // A number that was used anew.
        fids.push_back(step_fids[i]);
        vectors.insert(vectors.end(), &step_vectors[i * dim], &step_vectors[i * dim] + dim);
      }
      at = progress.next;
    }
  }
  rows.let_go();
  const std::size_t count = fids.size();
  return nb::make_tuple(handed_over(std::move(fids)), handed_over(std::move(vectors), {count, dim}),
                        handed_over(std::move(held.removed)));
}

void restore_rows(Table& table, const Fids& fids, const Rows<const float>& vectors, const Rows<const float>& states,
                  const Column<const std::int64_t>& last_seen_us, const Column<const std::int64_t>& counts,
                  const std::optional<Column<const std::uint32_t>>& epochs,
                  const std::optional<Column<const std::uint32_t>>& row_numbers) {
  require_fids(fids);
  require_shape(vectors, fids.size(), table.dim(), "vectors");
  require_shape(states, fids.size(), table.state_dim(), "states");
  require_length(last_seen_us, fids.size(), "last_seen_us");
  require_length(counts, fids.size(), "counts");
  require_not_negative(last_seen_us, "last_seen_us");
  require_not_negative(counts, "counts");
  dolmen::RowColumns<true> columns{
      span_of(fids), span_of(vectors), span_of(states), span_of(last_seen_us), span_of(counts), {}, {}};
  if (epochs) {
    require_length(*epochs, fids.size(), "epochs");
    columns.epochs = span_of(*epochs);
  }
  if (row_numbers) {
    require_length(*row_numbers, fids.size(), "row_numbers");
    columns.row_numbers = span_of(*row_numbers);
    const auto& numbers = columns.row_numbers;
    const auto found = std::find(numbers.begin(), numbers.end(), std::numeric_limits<std::uint32_t>::max());
    if (found != numbers.end()) {
      throw nb::value_error(
          ("row_numbers must be below 4294967295, got it at position " + std::to_string(found - numbers.begin()))
              .c_str());
    }
  }
  bool is_done = false;
  {
    nb::gil_scoped_release unlocked;
    is_done = table.restore_rows(columns);
  }
  if (!is_done)
    throw nb::value_error(
        "rows to restore must be new: a FID or a row number is in the table already, or "
        "twice in the chunk; nothing was restored");
}

void hash_into_buckets(const Rows<const float>& vectors, const Rows<const double>& projections, std::size_t bits,
                       const Rows<std::int64_t>& out) {
  const std::size_t rounds = out.shape(1);
  if (bits > dolmen::kBitsMax) {
    throw nb::value_error(
        ("bits must be at most " + std::to_string(dolmen::kBitsMax) + ", got " + std::to_string(bits)).c_str());
  }
  require_shape(projections, vectors.shape(1), rounds * bits, "projections", "width, rounds * bits");
  require_shape(out, vectors.shape(0), rounds, "out", "vectors, rounds");
  nb::gil_scoped_release unlocked;
  dolmen::hash_into_buckets({span_of(projections), vectors.shape(1), rounds, bits}, span_of(vectors), span_of(out));
}

void read_buckets(const Sums& sums, const Column<const std::int64_t>& owners, const Rows<const std::int64_t>& buckets,
                  float length_min, const Rows<float>& out) {
  require_shape(buckets, owners.size(), sums.shape(1), "buckets", "owners, rounds");
  require_shape(out, owners.size(), sums.shape(3), "out", "owners, width");
  require_below(owners, sums.shape(0), "owners");
  require_below(buckets, sums.shape(2), "buckets");
  nb::gil_scoped_release unlocked;
  dolmen::read_buckets({sums.shape(1), sums.shape(2), sums.shape(3)}, span_of(sums), span_of(owners), span_of(buckets),
                       length_min, span_of(out));
}

}  // namespace

NB_MODULE(_native, m) {
  m.def("hash_bytes", &hash_bytes, "data"_a.noconvert(), "offsets"_a.noconvert(), "seed"_a = 0);
  m.def("first_foreign", &first_foreign, "fids"_a.noconvert(), "is_known"_a.noconvert());
  m.def(
      "checksum",
      [](const Column<const std::uint8_t>& data, std::uint64_t seed) {
        nb::gil_scoped_release unlocked;
        return dolmen::xxh64(span_of(data), seed);
      },
      "data"_a.noconvert(), "seed"_a);

  m.def(
      "pool_rows",
      [](const Rows<const float>& rows, const Column<const std::int64_t>& lengths, bool is_mean,
         const Rows<float>& out) {
        require_shape(out, lengths.size(), rows.shape(1), "out");
        std::int64_t left = static_cast<std::int64_t>(rows.shape(0));
        for (const std::int64_t length : span_of(lengths)) {
          if (length < 0 || length > left)
            throw nb::value_error("lengths must be at least 0 and sum to the rows' count");
          left -= length;
        }
        if (left != 0) throw nb::value_error("lengths must be at least 0 and sum to the rows' count");
        dolmen::pool_rows(span_of(rows), span_of(lengths), rows.shape(1), is_mean, span_of(out));
      },
      "rows"_a.noconvert(), "lengths"_a.noconvert(), nb::kw_only(), "is_mean"_a, "out"_a.noconvert());

  m.def("hash_into_buckets", &hash_into_buckets, "vectors"_a.noconvert(), "projections"_a.noconvert(), "bits"_a,
        "out"_a.noconvert());
  m.def("read_buckets", &read_buckets, "sums"_a.noconvert(), "owners"_a.noconvert(), "buckets"_a.noconvert(),
        "length_min"_a, "out"_a.noconvert());

  nb::class_<AllRows>(m, "AllRows")
      .def_prop_ro("row_end",
                   [](const AllRows& held) {
                     if (!held.rows) throw nb::value_error("this instant of the table was closed; take another");
                     return held.rows->row_end();
                   })
      .def("read", &read_all_rows, "begin"_a, "end"_a, "fids"_a.noconvert(), "vectors"_a.noconvert(),
           "states"_a.noconvert(), "last_seen_us"_a.noconvert(), "counts"_a.noconvert(), "epochs"_a.noconvert(),
           "row_numbers"_a.noconvert())
      .def("close", [](AllRows& held) { held.rows.let_go(); });

  nb::class_<HeldChanges>(m, "Changes").def("read", &read_changes);

  nb::class_<Table>(m, "Table")
      .def(
          "__init__",
          [](Table* self, std::uint32_t dim, const std::string& optimizer,
             const std::map<std::string, double>& settings, std::uint64_t seed, std::uint64_t hash_seed,
             float initial_range, const std::string& precision) {
            auto [made, clip] = dolmen::make_optimizer(optimizer, settings);
            const auto stored = kind_named(kPrecisions, precision, "precision");
            const bool has_state = std::visit([&](const auto& one) { return one.state_dim(dim) > 0; }, made);
            if (has_state && stored != dolmen::Precision::kFloat32) {
              throw nb::value_error(("precision " + precision + " leaves no room for the state of optimizer " +
                                     optimizer + "; a table that serves has none")
                                        .c_str());
            }
            new (self) Table({dim, seed, hash_seed, initial_range, clip, stored}, std::move(made));
          },
          "dim"_a, "optimizer"_a, "settings"_a, "seed"_a, "hash_seed"_a, "initial_range"_a, "precision"_a)
      .def_prop_ro("dim", &Table::dim)
      .def_prop_ro("state_dim", &Table::state_dim)
      .def("__len__", &Table::size)
      .def_prop_rw("thread_count", &Table::thread_count,
                   [](Table& table, std::size_t count) {
                     if (count < 1 || count > dolmen::kThreadsMax) {
                       throw nb::value_error(("threads must be between 1 and " + std::to_string(dolmen::kThreadsMax) +
                                              ", got " + std::to_string(count))
                                                 .c_str());
                     }
                     nb::gil_scoped_release unlocked;
                     table.set_thread_count(count);
                   })
      .def(
          "set_rule",
          [](Table& table, std::uint32_t slot, const std::string& admission, std::int64_t admit_after,
             std::uint32_t admission_capacity, std::int64_t expire_after_us, const std::string& eviction,
             std::int64_t capacity, std::int64_t half_life_us, float learning_rate_scale, bool absent_reads_start) {
            require_slot(slot);
            if (table.size() != 0) throw nb::value_error("rules are set before there are rows");
            table.set_rule(slot, {{kind_named(kAdmissions, admission, "admission"), admit_after, admission_capacity},
                                  expire_after_us,
                                  {capacity, kind_named(kEvictions, eviction, "eviction"), half_life_us},
                                  learning_rate_scale,
                                  absent_reads_start});
          },
          "slot"_a, nb::kw_only(), "admission"_a, "admit_after"_a, "admission_capacity"_a, "expire_after_us"_a,
          "eviction"_a, "capacity"_a, "half_life_us"_a, "learning_rate_scale"_a, "absent_reads_start"_a)
      .def(
          "set_capacity",
          [](Table& table, std::int64_t row_count_max, const std::string& eviction, std::int64_t half_life_us) {
            const dolmen::CapacityOptions options{row_count_max, kind_named(kEvictions, eviction, "eviction"),
                                                  half_life_us};
            waited_for([&] { table.set_capacity(options); });
          },
          "row_count_max"_a, "eviction"_a, "half_life_us"_a)
      .def(
          "lookup",
          [](const Table& table, const Fids& fids, const Rows<float>& out) {
            require_fids(fids);
            require_shape(out, fids.size(), table.dim(), "out");
            nb::gil_scoped_release unlocked;
            table.lookup(span_of(fids), span_of(out));
          },
          "fids"_a.noconvert(), "out"_a.noconvert())
      .def(
          "lookup_or_insert",
          [](Table& table, const Fids& fids, std::int64_t now_us, const Rows<float>& out) {
            require_learning(table);
            require_fids(fids);
            require_shape(out, fids.size(), table.dim(), "out");
            nb::gil_scoped_release unlocked;
            table.lookup_or_insert(span_of(fids), now_us, span_of(out));
          },
          "fids"_a.noconvert(), "now_us"_a, "out"_a.noconvert())
      .def(
          "apply_gradients",
          [](Table& table, const Fids& fids, const Rows<const float>& grads, float learning_rate_scale,
             bool is_checked) {
            require_learning(table);
            require_fids(fids);
            require_shape(grads, fids.size(), table.dim(), "grads");
            if (!is_checked) require_learnable(table, fids, grads);
            nb::gil_scoped_release unlocked;
            return table.apply_gradients(span_of(fids), span_of(grads), learning_rate_scale);
          },
          "fids"_a.noconvert(), "grads"_a.noconvert(), "learning_rate_scale"_a, "is_checked"_a = false)
      .def("find_moving", &find_moving, "fids"_a.noconvert(), "grads"_a.noconvert(), "out"_a.noconvert())
      .def(
          "assign",
          [](Table& table, const Fids& fids, const Rows<const float>& vectors) {
            require_fids(fids);
            require_shape(vectors, fids.size(), table.dim(), "vectors");
            require_finite(fids, vectors, "vectors", "nothing was assigned");
            nb::gil_scoped_release unlocked;
            table.assign(span_of(fids), span_of(vectors));
          },
          "fids"_a.noconvert(), "vectors"_a.noconvert())
      .def(
          "contains",
          [](const Table& table, const Fids& fids, const Column<bool>& out) {
            fill_column(fids, out, [&](auto from, auto to) { table.contains(from, to); });
          },
          "fids"_a.noconvert(), "out"_a.noconvert())
      .def(
          "counts",
          [](const Table& table, const Fids& fids, const Column<std::int64_t>& out) {
            fill_column(fids, out, [&](auto from, auto to) { table.counts(from, to); });
          },
          "fids"_a.noconvert(), "out"_a.noconvert())
      .def(
          "last_seen",
          [](const Table& table, const Fids& fids, const Column<std::int64_t>& out) {
            fill_column(fids, out, [&](auto from, auto to) { table.last_seen(from, to); });
          },
          "fids"_a.noconvert(), "out"_a.noconvert())
      .def(
          "erase",
          [](Table& table, const Fids& fids) {
            require_fids(fids);
            nb::gil_scoped_release unlocked;
            return table.erase(span_of(fids));
          },
          "fids"_a.noconvert())
      .def(
          "expire",
          [](Table& table, std::int64_t now_us, std::uint32_t begin, std::size_t count_max) {
            nb::gil_scoped_release unlocked;
            const auto progress = table.expire(now_us, begin, count_max, count_max);
            return std::pair(progress.count, progress.next);
          },
          "now_us"_a, "begin"_a, "count_max"_a)
      .def("expire_pending", &Table::expire_pending, "now_us"_a, "count_max"_a,
           nb::call_guard<nb::gil_scoped_release>())
      .def("begin_sweep", &Table::begin_sweep, "now_us"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("sweep", &Table::sweep, "look_max"_a, "leave_max"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("begin_eviction", &Table::begin_eviction, nb::call_guard<nb::gil_scoped_release>())
      .def("evict", &Table::evict, "count_max"_a, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_rw("time_seen_max_us", &Table::time_seen_max_us, &Table::set_time_seen_max_us, kWaits)
      .def("clocks",
           [](const Table& table) {
             const dolmen::Clocks clocks = waited_for([&] { return table.clocks(); });
             return std::tuple(clocks.step_count, clocks.batch_count, clocks.eviction_count, clocks.inserted_count,
                               clocks.sweep_us, clocks.sweep_row);
           })
      .def(
          "restore_clocks",
          [](Table& table, std::uint64_t step_count, std::uint64_t batch_count, std::uint64_t eviction_count,
             std::uint64_t inserted_count, std::int64_t sweep_us, std::uint32_t sweep_row) {
            table.restore_clocks({step_count, batch_count, eviction_count, inserted_count, sweep_us, sweep_row});
          },
          "step_count"_a, "batch_count"_a, "eviction_count"_a, "inserted_count"_a, "sweep_us"_a, "sweep_row"_a, kWaits)
      .def_prop_ro("epoch", &Table::epoch, kWaits)
      .def_prop_ro("oldest_epoch", &Table::oldest_epoch, kWaits)
      .def("advance_epoch", &Table::advance_epoch, kWaits)
      .def("forget_epochs", &Table::forget_epochs, "before"_a, kWaits)
      .def(
          "follow_epoch", [](Table& table, std::uint32_t epoch) { table.restore_epochs(epoch, epoch, {}); }, "epoch"_a,
          kWaits)
      .def(
          "changes_since",
          [](Table& table, std::uint32_t epoch) {
            const auto [oldest, current] = waited_for([&] { return std::pair(table.oldest_epoch(), table.epoch()); });
            if (epoch < oldest || epoch > current) {
              throw nb::value_error(("epoch must be between " + std::to_string(oldest) + " and " +
                                     std::to_string(current) + ", got " + std::to_string(epoch) +
                                     "; older changes were forgotten, take a snapshot instead")
                                        .c_str());
            }
            nb::gil_scoped_release unlocked;
            auto changes = table.changes_since(epoch);
            return HeldChanges{Held(std::move(changes.rows)), changes.first, changes.last,
                               std::move(changes.removed),    table.dim(),   table.state_dim()};
          },
          "epoch"_a, nb::keep_alive<0, 1>())
      .def("check_delta", &check_delta, "fids"_a.noconvert(), "vectors"_a.noconvert(), "removed"_a.noconvert(),
           "is_finite"_a = false)
      .def(
          "apply_delta",
          [](Table& table, const Fids& fids, const Rows<const float>& vectors, const Fids& removed, bool is_finite) {
            check_delta(table, fids, vectors, removed, is_finite);
            nb::gil_scoped_release unlocked;
            table.apply_delta(span_of(fids), span_of(vectors), span_of(removed));
          },
          "fids"_a.noconvert(), "vectors"_a.noconvert(), "removed"_a.noconvert(), "is_finite"_a = false)
      .def_prop_ro("row_end", &Table::row_end, kWaits)
      .def(
          "all_rows",
          [](Table& table) {
            nb::gil_scoped_release unlocked;
            return AllRows{Held(table.all_rows()), table.dim(), table.state_dim()};
          },
          nb::keep_alive<0, 1>())
      .def("reserve", &Table::reserve, "row_count"_a, kWaits)
      .def("restore_rows", &restore_rows, "fids"_a.noconvert(), "vectors"_a.noconvert(), "states"_a.noconvert(),
           "last_seen_us"_a.noconvert(), "counts"_a.noconvert(), "epochs"_a.none(), "row_numbers"_a.none())
      .def("pending",
           [](const Table& table) {
             std::vector<std::int64_t> fids, counts, last_seen_us;
             waited_for([&] {
               for (const auto& each : table.pending()) {
                 fids.push_back(each.fid);
                 counts.push_back(each.count);
                 last_seen_us.push_back(each.last_seen_us);
               }
             });
             return nb::make_tuple(handed_over(std::move(fids)), handed_over(std::move(counts)),
                                   handed_over(std::move(last_seen_us)));
           })
      .def(
          "restore_pending",
          [](Table& table, const Fids& fids, const Column<const std::int64_t>& counts,
             const Column<const std::int64_t>& last_seen_us) {
            require_fids(fids);
            require_length(counts, fids.size(), "counts");
            require_length(last_seen_us, fids.size(), "last_seen_us");
            require_not_negative(counts, "counts");
            require_not_negative(last_seen_us, "last_seen_us");
            std::vector<dolmen::PendingFid> pending;
            for (std::size_t i = 0; i < fids.size(); ++i) {
              pending.push_back({fids.data()[i], counts.data()[i], last_seen_us.data()[i]});
            }
            if (!waited_for([&] { return table.restore_pending(pending); })) {
              throw nb::value_error("pending counts are of FIDs whose slot has an exact admission count");
            }
          },
          "fids"_a.noconvert(), "counts"_a.noconvert(), "last_seen_us"_a.noconvert())
      .def("filters",
           [](const Table& table) {
             nb::dict all;
             for (auto& [slot, state] : waited_for([&] { return table.filters(); }))
               all[nb::int_(slot)] = handed_over(std::move(state));
             return all;
           })
      .def(
          "restore_filter",
          [](Table& table, std::uint32_t slot, const Column<const std::uint8_t>& state) {
            require_slot(slot);
            if (!waited_for([&] { return table.restore_filter(slot, span_of(state)); })) {
              throw nb::value_error(("the filter of slot " + std::to_string(slot) + " is not of its rule").c_str());
            }
          },
          "slot"_a, "state"_a.noconvert())
      .def(
          "failure_count",
          [](const Table& table, std::uint32_t slot) {
            require_slot(slot);
            return waited_for([&] { return table.failure_count(slot); });
          },
          "slot"_a)
      .def("removals",
           [](const Table& table) {
             std::vector<std::int64_t> fids;
             std::vector<std::uint32_t> epochs;
             waited_for([&] {
               for (const auto& each : table.removals()) {
                 fids.push_back(each.fid);
                 epochs.push_back(each.epoch);
               }
             });
             return nb::make_tuple(handed_over(std::move(fids)), handed_over(std::move(epochs)));
           })
      .def(
          "restore_epochs",
          [](Table& table, std::uint32_t oldest, std::uint32_t current, const Fids& fids,
             const Column<const std::uint32_t>& epochs) {
            require_fids(fids);
            require_length(epochs, fids.size(), "epochs");
            if (table.size() != 0) throw nb::value_error("epochs are restored before rows, into an empty table");
            const auto is_known = [&](std::uint32_t epoch) { return oldest <= epoch && epoch <= current; };
            if (oldest > current || !std::all_of(epochs.data(), epochs.data() + epochs.size(), is_known)) {
              throw nb::value_error("epochs must lie between oldest and current");
            }
            std::vector<dolmen::Removal> removals;
            for (std::size_t i = 0; i < fids.size(); ++i) removals.push_back({fids.data()[i], epochs.data()[i]});
            waited_for([&] { table.restore_epochs(oldest, current, removals); });
          },
          "oldest"_a, "current"_a, "fids"_a.noconvert(), "epochs"_a.noconvert())
      .def("slot_totals",
           [](const Table& table) {
             std::vector<std::int64_t> rows, sights;
             for (const auto& total : waited_for([&] { return table.slot_totals(); })) {
               rows.push_back(total.rows);
               sights.push_back(total.sights);
             }
             return nb::make_tuple(handed_over(std::move(rows)), handed_over(std::move(sights)));
           })
      .def(
          "fids_of",
          [](const Table& table, std::uint32_t slot) {
            require_slot(slot);
            return handed_over(waited_for([&] { return table.fids_of(slot); }));
          },
          "slot"_a)
      .def("memory", [](const Table& table) {
        const auto sizes = waited_for([&] { return table.memory(); });
        return std::tuple(sizes.index, sizes.rows, sizes.pending, sizes.changes);
      });
}
