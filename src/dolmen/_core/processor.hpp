// What the processor offers beyond the least that the build asks for, chosen at run time.
//
// A loop over a batch is written once, as an inlined template, and compiled twice: plainly, and with AVX2. The thread
// sanitizer must see each shared word, and DOLMEN_PORTABLE (for tests) asks for what every processor has.
#pragma once

#include "shared_memory.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(DOLMEN_THREAD_SANITIZER) && !defined(DOLMEN_PORTABLE)
#define DOLMEN_HAS_AVX2 1
#include <immintrin.h>
#define DOLMEN_AVX2 __attribute__((target("avx2,f16c")))
#endif

#define DOLMEN_INLINE [[gnu::always_inline]] inline

namespace dolmen {

inline bool has_avx2() noexcept {
#ifdef DOLMEN_HAS_AVX2
  static const bool has = __builtin_cpu_supports("avx2") > 0 && __builtin_cpu_supports("f16c") > 0;
  return has;
#else
  return false;
#endif
}

}  // namespace dolmen
