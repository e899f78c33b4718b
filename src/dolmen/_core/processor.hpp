// What the processor offers beyond the least that the build asks for, chosen at run time.
//
// A loop over a batch is written once, as inlined lambdas and templates, and compiled twice: plainly and with AVX2. The
// thread sanitizer must see each shared word, and DOLMEN_PORTABLE (for tests) asks for what every processor has.
#pragma once

#include "shared_memory.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(DOLMEN_THREAD_SANITIZER) && !defined(DOLMEN_PORTABLE)
#define DOLMEN_HAS_AVX2 1
#include <immintrin.h>
#define DOLMEN_AVX2 __attribute__((target("avx2,f16c")))
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(DOLMEN_THREAD_SANITIZER)
#define DOLMEN_SANITIZED 1
#endif

#define DOLMEN_INLINE [[gnu::always_inline]] inline
#define DOLMEN_INLINED __attribute__((always_inline))  // Behind the parameters of a lambda.

namespace dolmen {

struct Portable {
  template <typename Work>
  static auto run(const Work& work) {
    return work(Portable());
  }
};

#ifdef DOLMEN_HAS_AVX2
struct Avx2 {
  // What is inlined into this function may use what the processor has.
  template <typename Work>
  DOLMEN_AVX2 static auto run(const Work& work) {
    return work(Avx2());
  }
};
#endif

// Calls `work(Portable())` or `work(Avx2())`; `work` must be DOLMEN_INLINED.
template <typename Work>
auto with_processor(const Work& work) {
#ifdef DOLMEN_HAS_AVX2
  static const bool has_avx2 = __builtin_cpu_supports("avx2") > 0 && __builtin_cpu_supports("f16c") > 0;
  if (has_avx2) return Avx2::run(work);
#endif
  return Portable::run(work);
}

}  // namespace dolmen
