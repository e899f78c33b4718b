#include "optimizers.hpp"

#include <algorithm>
#include <cmath>

#include "shared_memory.hpp"

namespace dolmen {
namespace {

constexpr std::size_t kCorrectionCount = 4096;  // Beyond it, t is rare enough to compute powers each time.

}  // namespace

DOLMEN_VECTOR_CLONES void Sgd::step(const Step& step) const noexcept {
  const float rate = learning_rate * step.learning_rate_scale;
  float* __restrict w = step.vector;
  const float* __restrict gradient = step.gradient;
  for (std::uint32_t i = 0; i < step.dim; ++i) {
    const float g = gradient[i] + weight_decay * w[i];
    store_shared(w + i, w[i] - rate * g);
  }
}

void AdaGrad::init(float* state, std::uint32_t dim) const noexcept {
  std::fill_n(state, dim, initial_accumulator);
}

DOLMEN_VECTOR_CLONES void AdaGrad::step(const Step& step) const noexcept {
  const float rate = learning_rate * step.learning_rate_scale;
  float* __restrict w = step.vector;
  float* __restrict n = step.state;
  const float* __restrict gradient = step.gradient;
  for (std::uint32_t i = 0; i < step.dim; ++i) {
    const float g = gradient[i] + weight_decay * w[i];
    n[i] += g * g;
    store_shared(w + i, w[i] - rate * g / (std::sqrt(n[i]) + epsilon));
  }
}

void RowwiseAdaGrad::init(float* state, std::uint32_t) const noexcept {
  *state = initial_accumulator;
}

DOLMEN_VECTOR_CLONES void RowwiseAdaGrad::step(const Step& step) const noexcept {
  const float rate = learning_rate * step.learning_rate_scale;
  float* __restrict w = step.vector;
  const float* __restrict gradient = step.gradient;
  float sum = 0.0F;
  for (std::uint32_t i = 0; i < step.dim; ++i) {
    const float g = gradient[i] + weight_decay * w[i];
    sum += g * g;
  }
  *step.state += sum / static_cast<float>(step.dim);
  const float spread = std::sqrt(*step.state) + epsilon;
  for (std::uint32_t i = 0; i < step.dim; ++i) {
    const float g = gradient[i] + weight_decay * w[i];
    store_shared(w + i, w[i] - rate * g / spread);
  }
}

void Momentum::init(float* state, std::uint32_t dim) const noexcept {
  std::fill_n(state, dim, 0.0F);
}

DOLMEN_VECTOR_CLONES void Momentum::step(const Step& step) const noexcept {
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

void RmsProp::init(float* state, std::uint32_t dim) const noexcept {
  std::fill_n(state, dim, 0.0F);
}

DOLMEN_VECTOR_CLONES void RmsProp::step(const Step& step) const noexcept {
  const float rate = learning_rate * step.learning_rate_scale;
  const float take = 1.0F - decay;
  float* __restrict w = step.vector;
  float* __restrict n = step.state;
  const float* __restrict gradient = step.gradient;
  for (std::uint32_t i = 0; i < step.dim; ++i) {
    const float g = gradient[i] + weight_decay * w[i];
    n[i] = decay * n[i] + take * (g * g);
    store_shared(w + i, w[i] - rate * g / (std::sqrt(n[i]) + epsilon));
  }
}

void AdaDelta::init(float* state, std::uint32_t dim) const noexcept {
  std::fill_n(state, 2 * dim, 0.0F);
}

DOLMEN_VECTOR_CLONES void AdaDelta::step(const Step& step) const noexcept {
  const float rate = learning_rate * step.learning_rate_scale;
  const float take = 1.0F - decay;
  float* __restrict w = step.vector;
  float* __restrict n = step.state;
  float* __restrict moved = step.state + step.dim;
  const float* __restrict gradient = step.gradient;
  for (std::uint32_t i = 0; i < step.dim; ++i) {
    const float g = gradient[i] + weight_decay * w[i];
    n[i] = decay * n[i] + take * (g * g);
    const float move = std::sqrt(moved[i] + epsilon) / std::sqrt(n[i] + epsilon) * g;
    moved[i] = decay * moved[i] + take * (move * move);
    store_shared(w + i, w[i] - rate * move);
  }
}

void Ftrl::init(float* state, std::uint32_t dim) const noexcept {
  std::fill_n(state, 2 * dim, 0.0F);
}

DOLMEN_VECTOR_CLONES void Ftrl::step(const Step& step) const noexcept {
  const float rate = learning_rate * step.learning_rate_scale;
  float* __restrict w = step.vector;
  float* __restrict z = step.state;
  float* __restrict n = step.state + step.dim;
  const float* __restrict gradient = step.gradient;
  for (std::uint32_t i = 0; i < step.dim; ++i) {
    const float g = gradient[i];
    const float grown = n[i] + g * g;
    const float root = std::sqrt(grown);
    const float sigma = (root - std::sqrt(n[i])) / rate;
    z[i] += g - sigma * w[i];
    n[i] = grown;
    const float beyond = std::fabs(z[i]) - l1;
    const float size = beyond / ((beta + root) / rate + l2);
    store_shared(w + i, beyond <= 0.0F ? 0.0F : std::copysign(size, -z[i]));
  }
}

Adam::Adam(float learning_rate, float beta1, float beta2, float epsilon, float weight_decay)
    : learning_rate_(learning_rate),
      beta1_(beta1),
      beta2_(beta2),
      epsilon_(epsilon),
      weight_decay_(weight_decay),
      // Of the betas as rounded, so that the correction of the first step undoes it exactly.
      exact_beta1_(beta1_),
      exact_beta2_(beta2_) {
  for (std::size_t t = 0; t < kCorrectionCount; ++t) {
    corrections_.push_back({static_cast<float>(1.0 - std::pow(exact_beta1_, static_cast<double>(t))),
                            static_cast<float>(1.0 - std::pow(exact_beta2_, static_cast<double>(t)))});
  }
}

Adam::Correction Adam::correction(float step_count) const noexcept {
  if (step_count < static_cast<float>(kCorrectionCount)) return corrections_[static_cast<std::size_t>(step_count)];
  return {static_cast<float>(1.0 - std::pow(exact_beta1_, static_cast<double>(step_count))),
          static_cast<float>(1.0 - std::pow(exact_beta2_, static_cast<double>(step_count)))};
}

void Adam::init(float* state, std::uint32_t dim) const noexcept {
  std::fill_n(state, state_dim(dim), 0.0F);
}

DOLMEN_VECTOR_CLONES void Adam::step(const Step& step) const noexcept {
  const std::uint32_t dim = step.dim;
  float* __restrict w = step.vector;
  float* __restrict m = step.state;
  float* __restrict v = step.state + dim;
  const float* __restrict gradient = step.gradient;
  // float32 counts exactly to 2^24; there it stays, and both corrections have long been 1.
  const float step_count = step.state[2 * dim] += 1.0F;
  const Correction correct = correction(step_count);
  const float rate = learning_rate_ * step.learning_rate_scale;
  const float keep1 = beta1_;
  const float keep2 = beta2_;
  const float take1 = 1.0F - beta1_;
  const float take2 = 1.0F - beta2_;
  for (std::uint32_t i = 0; i < dim; ++i) {
    const float g = gradient[i] + weight_decay_ * w[i];
    m[i] = keep1 * m[i] + take1 * g;
    v[i] = keep2 * v[i] + take2 * (g * g);
    const float mean = m[i] / correct.first;
    const float spread = std::sqrt(v[i] / correct.second);
    store_shared(w + i, w[i] - rate * mean / (spread + epsilon_));
  }
}

}  // namespace dolmen
