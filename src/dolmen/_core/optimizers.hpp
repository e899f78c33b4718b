// The fused optimiser steps: one row's vector and state, changed in one pass by one gradient.
//
// All arithmetic is float32, operation by operation as written (the build forbids contraction to fused multiply-add),
// so that a step gives the same bits whatever the vector width, and NumPy can be its reference. A step is a pure
// function of what `Step` and the settings hold, and is inlined into the loop over a batch.
//
// "L2" below: where an optimiser has `weight_decay`, g is the gradient plus weight_decay * w.
//
// A gradient is finite, but its square may be beyond float32 from 1.8e19 on. A sum or a mean of squares therefore ends
// at `kSquareMax`: a mean forgets that with time, where an infinite one would stay so for good (a sum forgets nothing;
// who expects such gradients clips them). SGD and Momentum square nothing; the group lasso asks its squares only
// whether they are beyond a bound, and infinity is.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "processor.hpp"
#include "shared_memory.hpp"

namespace dolmen {

// Low enough that a running mean of such squares is finite however it is rounded, also when it is freed of its start.
constexpr float kSquareMax = 0x1p126F;

// `square` may be infinite.
DOLMEN_INLINE float bounded(float square) noexcept {
  return std::min(square, kSquareMax);
}

struct Step {
  float* vector;  // Read by other threads meanwhile, under the bucket's stamp.
  float* state;
  const float* gradient;
  std::uint32_t dim;
  float learning_rate_scale;
  std::uint64_t step_count;  // Of the table: how many batches it has learned, with this one.
};

// w -= rate * g                                                                  (L2)
struct Sgd {
  float learning_rate, weight_decay;
  static std::uint32_t state_dim(std::uint32_t) noexcept { return 0; }
  void init(float*, std::uint32_t) const noexcept {}
  DOLMEN_INLINE void step(const Step& step) const noexcept {
    const float rate = learning_rate * step.learning_rate_scale;
    float* __restrict w = step.vector;
    const float* __restrict gradient = step.gradient;
    for (std::uint32_t i = 0; i < step.dim; ++i) {
      const float g = gradient[i] + weight_decay * w[i];
      store_shared(w + i, w[i] - rate * g);
    }
  }
};

// n += g^2; w -= rate * g / (sqrt(n) + epsilon)                                  (L2; Duchi, Hazan, Singer, JMLR 2011)
struct AdaGrad {
  float learning_rate, initial_accumulator, epsilon, weight_decay;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return dim; }
  void init(float* state, std::uint32_t dim) const noexcept { std::fill_n(state, dim, initial_accumulator); }
  DOLMEN_INLINE void step(const Step& step) const noexcept {
    const float rate = learning_rate * step.learning_rate_scale;
    float* __restrict w = step.vector;
    float* __restrict n = step.state;
    const float* __restrict gradient = step.gradient;
    for (std::uint32_t i = 0; i < step.dim; ++i) {
      const float g = gradient[i] + weight_decay * w[i];
      n[i] = bounded(n[i] + g * g);
      store_shared(w + i, w[i] - rate * g / (std::sqrt(n[i]) + epsilon));
    }
  }
};

// n += mean of g^2 over the row; w -= rate * g / (sqrt(n) + epsilon)             (L2)
struct RowwiseAdaGrad {
  float learning_rate, initial_accumulator, epsilon, weight_decay;
  static std::uint32_t state_dim(std::uint32_t) noexcept { return 1; }
  void init(float* state, std::uint32_t) const noexcept { *state = initial_accumulator; }
  DOLMEN_INLINE void step(const Step& step) const noexcept {
    const float rate = learning_rate * step.learning_rate_scale;
    float* __restrict w = step.vector;
    const float* __restrict gradient = step.gradient;
    float sum = 0.0F;
    for (std::uint32_t i = 0; i < step.dim; ++i) {
      const float g = gradient[i] + weight_decay * w[i];
      sum += g * g;
    }
    *step.state = bounded(*step.state + sum / static_cast<float>(step.dim));
    const float spread = std::sqrt(*step.state) + epsilon;
    for (std::uint32_t i = 0; i < step.dim; ++i) {
      const float g = gradient[i] + weight_decay * w[i];
      store_shared(w + i, w[i] - rate * g / spread);
    }
  }
};

// b = momentum * b + g; w -= rate * b                                            (L2; Polyak, 1964)
struct Momentum {
  float learning_rate, momentum, weight_decay;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return dim; }
  void init(float* state, std::uint32_t dim) const noexcept { std::fill_n(state, dim, 0.0F); }
  DOLMEN_INLINE void step(const Step& step) const noexcept {
    const float rate = learning_rate * step.learning_rate_scale;
    float* __restrict w = step.vector;
    float* __restrict b = step.state;
    const float* __restrict gradient = step.gradient;
    for (std::uint32_t i = 0; i < step.dim; ++i) {
      const float g = gradient[i] + weight_decay * w[i];
      b[i] = momentum * b[i] + g;
      store_shared(w + i, w[i] - rate * b[i]);
    }
  }
};

// n = decay * n + (1 - decay) * g^2; w -= rate * g / (sqrt(n) + epsilon)         (L2)
struct RmsProp {
  float learning_rate, decay, epsilon, weight_decay;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return dim; }
  void init(float* state, std::uint32_t dim) const noexcept { std::fill_n(state, dim, 0.0F); }
  DOLMEN_INLINE void step(const Step& step) const noexcept {
    const float rate = learning_rate * step.learning_rate_scale;
    const float take = 1.0F - decay;
    float* __restrict w = step.vector;
    float* __restrict n = step.state;
    const float* __restrict gradient = step.gradient;
    for (std::uint32_t i = 0; i < step.dim; ++i) {
      const float g = gradient[i] + weight_decay * w[i];
      n[i] = decay * n[i] + take * bounded(g * g);
      store_shared(w + i, w[i] - rate * g / (std::sqrt(n[i]) + epsilon));
    }
  }
};

// State is the running mean of g^2, then that of the squared moves.              (L2; Zeiler, 2012, algorithm 1)
struct AdaDelta {
  float learning_rate, decay, epsilon, weight_decay;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return 2 * dim; }
  void init(float* state, std::uint32_t dim) const noexcept { std::fill_n(state, 2 * dim, 0.0F); }
  DOLMEN_INLINE void step(const Step& step) const noexcept {
    const float rate = learning_rate * step.learning_rate_scale;
    const float take = 1.0F - decay;
    float* __restrict w = step.vector;
    float* __restrict n = step.state;
    float* __restrict moved = step.state + step.dim;
    const float* __restrict gradient = step.gradient;
    for (std::uint32_t i = 0; i < step.dim; ++i) {
      const float g = gradient[i] + weight_decay * w[i];
      n[i] = decay * n[i] + take * bounded(g * g);
      const float move = std::sqrt(moved[i] + epsilon) / std::sqrt(n[i] + epsilon) * g;
      moved[i] = decay * moved[i] + take * bounded(move * move);
      store_shared(w + i, w[i] - rate * move);
    }
  }
};

// FTRL-Proximal (McMahan et al., KDD 2013, algorithm 1): state is z, then n.
//
// All of a row's gradients so far make its w anew at each step, so the curvature must be the same for all of them: were
// it today's rate's, a lower rate would shrink what was learned at a higher one. The scale weighs the gradient in z
// instead, which without l1 and l2 moves w just as far as a rate multiplied by it.
struct Ftrl {
  float learning_rate, beta, l1, l2;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return 2 * dim; }
  void init(float* state, std::uint32_t dim) const noexcept { std::fill_n(state, 2 * dim, 0.0F); }
  DOLMEN_INLINE void step(const Step& step) const noexcept {
    const float weight = step.learning_rate_scale;
    float* __restrict w = step.vector;
    float* __restrict z = step.state;
    float* __restrict n = step.state + step.dim;
    const float* __restrict gradient = step.gradient;
    for (std::uint32_t i = 0; i < step.dim; ++i) {
      const float g = gradient[i];
      const float grown = bounded(n[i] + g * g);
      const float root = std::sqrt(grown);
      const float sigma = (root - std::sqrt(n[i])) / learning_rate;
      z[i] += weight * g - sigma * w[i];
      n[i] = grown;
      const float beyond = std::fabs(z[i]) - l1;
      const float size = beyond / ((beta + root) / learning_rate + l2);
      store_shared(w + i, beyond <= 0.0F ? 0.0F : std::copysign(size, -z[i]));
    }
  }
};

// FTRL-Proximal with the sparse group lasso, a row being the group (Yue et al., ECML PKDD 2021, theorem 1): where s is
// -z with l1 taken off its size and h the curvature, w = max(0, 1 - sqrt(dim) * l21 / |s / sqrt(h / 2)|) * s / h.
struct GroupFtrl {
  float learning_rate, beta, l1, l21, l2;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return 2 * dim; }
  void init(float* state, std::uint32_t dim) const noexcept { std::fill_n(state, 2 * dim, 0.0F); }
  DOLMEN_INLINE void step(const Step& step) const noexcept {
    const float weight = step.learning_rate_scale;
    float* __restrict w = step.vector;
    float* __restrict z = step.state;
    float* __restrict n = step.state + step.dim;
    const float* __restrict gradient = step.gradient;
    float square = 0.0F;
    for (std::uint32_t i = 0; i < step.dim; ++i) {
      const float g = gradient[i];
      const float grown = bounded(n[i] + g * g);
      const float root = std::sqrt(grown);
      const float sigma = (root - std::sqrt(n[i])) / learning_rate;
      z[i] += weight * g - sigma * w[i];
      n[i] = grown;
      const float beyond = std::max(std::fabs(z[i]) - l1, 0.0F);
      square += 2.0F * (beyond * beyond) / ((beta + root) / learning_rate + l2);
    }
    const float most = std::sqrt(static_cast<float>(step.dim)) * l21;
    const float norm = std::sqrt(square);
    const float kept = norm > most ? 1.0F - most / norm : 0.0F;
    for (std::uint32_t i = 0; i < step.dim; ++i) {
      const float beyond = std::fabs(z[i]) - l1;
      const float size = beyond / ((beta + std::sqrt(n[i])) / learning_rate + l2) * kept;
      store_shared(w + i, beyond <= 0.0F || kept == 0.0F ? 0.0F : std::copysign(size, -z[i]));
    }
  }
};

enum class AdamKind {
  kPlain,    // t is the row's own count of steps. State: m, v, t.
  kLazy,     // t is the table's count of batches. State: m, v.
  kRowwise,  // One v a row, of the mean of g^2. State: m, v, t.
  kMaximum,  // AMSGrad: divides by the largest v so far (Reddi et al., ICLR 2018, algorithm 2). State: m, v, max v, t.
};

// Kingma and Ba, ICLR 2015, algorithm 1. Decay of weights: L2, or decoupled (Loshchilov, Hutter, ICLR 2019, alg. 2).
template <AdamKind kind>
class AdamOf {
 public:
  struct Settings {
    float learning_rate, beta1, beta2, epsilon, weight_decay;
    bool is_decoupled;
  };
  explicit AdamOf(const Settings& settings);
  float learning_rate() const noexcept { return settings_.learning_rate; }
  static std::uint32_t state_dim(std::uint32_t dim) noexcept {
    switch (kind) {
      case AdamKind::kLazy:
        return 2 * dim;
      case AdamKind::kRowwise:
        return dim + 2;
      case AdamKind::kMaximum:
        return 3 * dim + 1;
      default:
        return 2 * dim + 1;
    }
  }
  void init(float* state, std::uint32_t dim) const noexcept { std::fill_n(state, state_dim(dim), 0.0F); }

  DOLMEN_INLINE void step(const Step& step) const noexcept {
    const std::uint32_t dim = step.dim;
    float* __restrict w = step.vector;
    float* __restrict m = step.state;
    float* __restrict v = step.state + dim;
    const float* __restrict gradient = step.gradient;
    const Correction correct = correction(count_step(step));
    const float rate = settings_.learning_rate * step.learning_rate_scale;
    const float l2 = settings_.is_decoupled ? 0.0F : settings_.weight_decay;
    const float shrink = settings_.is_decoupled ? rate * settings_.weight_decay : 0.0F;
    const float keep1 = settings_.beta1;
    const float keep2 = settings_.beta2;
    const float take1 = 1.0F - keep1;
    const float take2 = 1.0F - keep2;
    const float epsilon = settings_.epsilon;
    if constexpr (kind == AdamKind::kRowwise) {
      float sum = 0.0F;
      for (std::uint32_t i = 0; i < dim; ++i) {
        const float g = gradient[i] + l2 * w[i];
        sum += g * g;
      }
      *v = keep2 * *v + take2 * bounded(sum / static_cast<float>(dim));
      const float spread = std::sqrt(*v / correct.second) + epsilon;
      for (std::uint32_t i = 0; i < dim; ++i) {
        const float g = gradient[i] + l2 * w[i];
        m[i] = keep1 * m[i] + take1 * g;
        const float mean = m[i] / correct.first;
        store_shared(w + i, w[i] - shrink * w[i] - rate * mean / spread);
      }
    } else {
      [[maybe_unused]] float* __restrict most = step.state + 2 * dim;
      for (std::uint32_t i = 0; i < dim; ++i) {
        const float g = gradient[i] + l2 * w[i];
        m[i] = keep1 * m[i] + take1 * g;
        v[i] = keep2 * v[i] + take2 * bounded(g * g);
        float second = v[i];
        if constexpr (kind == AdamKind::kMaximum) second = most[i] = std::max(most[i], second);
        const float mean = m[i] / correct.first;
        const float spread = std::sqrt(second / correct.second) + epsilon;
        store_shared(w + i, w[i] - shrink * w[i] - rate * mean / spread);
      }
    }
  }

 private:
  struct Correction {
    float first, second;  // 1 - beta1^t, 1 - beta2^t.
  };

  DOLMEN_INLINE std::uint64_t count_step(const Step& step) const noexcept {
    if constexpr (kind == AdamKind::kLazy) return step.step_count;
    // float32 counts exactly to 2^24; there it stays, and both corrections have long been 1.
    return static_cast<std::uint64_t>(step.state[state_dim(step.dim) - 1] += 1.0F);
  }
  DOLMEN_INLINE Correction correction(std::uint64_t t) const noexcept {
    return t < corrections_.size() ? corrections_[t] : late_correction(t);
  }
  Correction late_correction(std::uint64_t t) const noexcept;

  Settings settings_;
  double beta1_, beta2_;                 // As rounded, so that the correction of the first step undoes it exactly.
  std::vector<Correction> corrections_;  // Of t from 0, until both are 1 or there are enough.
  bool is_settled_ = false;              // Beyond them both are 1.
};

using Adam = AdamOf<AdamKind::kPlain>;
using LazyAdam = AdamOf<AdamKind::kLazy>;
using RowwiseAdam = AdamOf<AdamKind::kRowwise>;
using AmsGrad = AdamOf<AdamKind::kMaximum>;

using Optimizer = std::variant<Sgd, AdaGrad, RowwiseAdaGrad, Momentum, RmsProp, AdaDelta, Ftrl, GroupFtrl, Adam,
                               LazyAdam, RowwiseAdam, AmsGrad>;

// What is cut off a row's summed gradient before its step: first each value, then the length of what is left.
struct Clip {
  static constexpr float kNone = std::numeric_limits<float>::infinity();
  float value_max = kNone, norm_max = kNone;

  bool is_on() const noexcept { return value_max != kNone || norm_max != kNone; }

  // The gradient itself where nothing is clipped, else `out`, which has room for `dim`.
  const float* apply(const float* gradient, std::uint32_t dim, float* out) const noexcept {
    if (!is_on()) return gradient;
    double square = 0.0;  // In double, where no float32 overflows or vanishes.
    for (std::uint32_t i = 0; i < dim; ++i) {
      out[i] = std::clamp(gradient[i], -value_max, value_max);
      square += double{out[i]} * double{out[i]};
    }
    const double norm = std::sqrt(square);
    if (norm > double{norm_max}) {
      const double scale = double{norm_max} / norm;
      for (std::uint32_t i = 0; i < dim; ++i) out[i] = static_cast<float>(double{out[i]} * scale);
    }
    return out;
  }
};

// How large the sum of a row's gradients may be, before it is clipped: so far from the end of float32 that one step, at
// any rate, does not lead there.
float gradient_sum_max(const Optimizer& optimizer, const Clip& clip) noexcept;

// By name, from settings by name. Throws std::invalid_argument that names what is unknown or missing.
std::pair<Optimizer, Clip> make_optimizer(const std::string& name, std::map<std::string, double> settings);

}  // namespace dolmen
