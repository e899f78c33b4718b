// The fused optimiser steps: one row's vector and state, changed in one pass by one gradient.
//
// All arithmetic is float32, operation by operation as written (the build forbids contraction to fused multiply-add),
// so that a step gives the same bits whatever the vector width, and NumPy can be its reference.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

// Each step is compiled twice, for processors with AVX2 and for all others; the loader takes the one that fits.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define DOLMEN_VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define DOLMEN_VECTOR_CLONES
#endif

namespace dolmen {

struct Step {
  float* vector;  // Read by other threads meanwhile, under the bucket's stamp.
  float* state;
  const float* gradient;
  std::uint32_t dim;
  float learning_rate_scale;
};

// w -= rate * (g + decay * w)
struct Sgd {
  float learning_rate, weight_decay;
  static std::uint32_t state_dim(std::uint32_t) noexcept { return 0; }
  void init(float*, std::uint32_t) const noexcept {}
  void step(const Step& step) const noexcept;
};

// n += g^2; w -= rate * g / (sqrt(n) + epsilon)        (Duchi, Hazan, Singer, JMLR 2011)
struct AdaGrad {
  float learning_rate, initial_accumulator, epsilon, weight_decay;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return dim; }
  void init(float* state, std::uint32_t dim) const noexcept;
  void step(const Step& step) const noexcept;
};

// n += mean of g^2 over the row; w -= rate * g / (sqrt(n) + epsilon)
struct RowwiseAdaGrad {
  float learning_rate, initial_accumulator, epsilon, weight_decay;
  static std::uint32_t state_dim(std::uint32_t) noexcept { return 1; }
  void init(float* state, std::uint32_t dim) const noexcept;
  void step(const Step& step) const noexcept;
};

// b = momentum * b + g; w -= rate * b
struct Momentum {
  float learning_rate, momentum, weight_decay;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return dim; }
  void init(float* state, std::uint32_t dim) const noexcept;
  void step(const Step& step) const noexcept;
};

// n = decay * n + (1 - decay) * g^2; w -= rate * g / (sqrt(n) + epsilon)
struct RmsProp {
  float learning_rate, decay, epsilon, weight_decay;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return dim; }
  void init(float* state, std::uint32_t dim) const noexcept;
  void step(const Step& step) const noexcept;
};

// Zeiler, 2012, algorithm 1: state is the running mean of g^2, then that of the squared steps.
struct AdaDelta {
  float learning_rate, decay, epsilon, weight_decay;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return 2 * dim; }
  void init(float* state, std::uint32_t dim) const noexcept;
  void step(const Step& step) const noexcept;
};

// FTRL-Proximal (McMahan et al., KDD 2013, algorithm 1): state is z, then n.
struct Ftrl {
  float learning_rate, beta, l1, l2;
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return 2 * dim; }
  void init(float* state, std::uint32_t dim) const noexcept;
  void step(const Step& step) const noexcept;
};

// Kingma and Ba, ICLR 2015, algorithm 1, with each row's own step count t: state is m, v, t.
class Adam {
 public:
  Adam(float learning_rate, float beta1, float beta2, float epsilon, float weight_decay);
  static std::uint32_t state_dim(std::uint32_t dim) noexcept { return 2 * dim + 1; }
  void init(float* state, std::uint32_t dim) const noexcept;
  void step(const Step& step) const noexcept;

 private:
  struct Correction {
    float first, second;  // 1 - beta1^t, 1 - beta2^t.
  };
  Correction correction(float step_count) const noexcept;

  float learning_rate_, beta1_, beta2_, epsilon_, weight_decay_;
  double exact_beta1_, exact_beta2_;
  std::vector<Correction> corrections_;
};

using Optimizer = std::variant<Sgd, AdaGrad, RowwiseAdaGrad, Momentum, RmsProp, AdaDelta, Ftrl, Adam>;

}  // namespace dolmen
