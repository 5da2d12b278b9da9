// Vectors of 16 lanes as two registers of AVX2 with FMA and F16C. What each operation means: portable.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../numbers.h"

#define OFFRAMP_INLINE inline __attribute__((always_inline))

namespace offramp {
namespace {

constexpr int kLanes = 16;

struct Vec {
  __m256 lo, hi;
};
struct IntVec {
  __m256i lo, hi;
};
struct Mask {
  __m256 lo, hi;  // all bits of a lane
};
struct Pairs {
  __m256i lo, hi;
};

OFFRAMP_INLINE __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
OFFRAMP_INLINE __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
OFFRAMP_INLINE void store_128(void* p, __m128i a) { _mm_storeu_si128(static_cast<__m128i*>(p), a); }
OFFRAMP_INLINE void store_256(void* p, __m256i a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }

// All bits of the lanes below n, of lanes first..first + 7.
OFFRAMP_INLINE __m256i below(int64_t n, int first) {
  const int32_t bound = n <= 0 ? 0 : n >= kLanes ? kLanes : static_cast<int32_t>(n);
  const __m256i lanes = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(bound), lanes);
}

OFFRAMP_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }

OFFRAMP_INLINE void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}

OFFRAMP_INLINE Vec broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }

OFFRAMP_INLINE Vec load_first(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, below(n, 0)), _mm256_maskload_ps(p + 8, below(n, 8))};
}

OFFRAMP_INLINE void store_first(float* p, int64_t n, Vec a) {
  _mm256_maskstore_ps(p, below(n, 0), a.lo);
  _mm256_maskstore_ps(p + 8, below(n, 8), a.hi);
}

OFFRAMP_INLINE Vec load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 8))};
}

OFFRAMP_INLINE __m256 widen_bf16(__m128i a) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16));
}

OFFRAMP_INLINE Vec load_bf16(const uint16_t* p) { return {widen_bf16(load_128(p)), widen_bf16(load_128(p + 8))}; }

OFFRAMP_INLINE void store_half(uint16_t* p, Vec a) {
  store_128(p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  store_128(p + 8, _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

OFFRAMP_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
OFFRAMP_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
OFFRAMP_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
OFFRAMP_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
OFFRAMP_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
OFFRAMP_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
OFFRAMP_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

OFFRAMP_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

OFFRAMP_INLINE Vec abs(Vec a) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(a.lo, mask), _mm256_and_ps(a.hi, mask)};
}

OFFRAMP_INLINE Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }

OFFRAMP_INLINE float sum(Vec a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

OFFRAMP_INLINE float largest(Vec a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// --- IntVec

OFFRAMP_INLINE IntVec load_int(const int32_t* p) { return {load_256(p), load_256(p + 8)}; }

OFFRAMP_INLINE void store_int(int32_t* p, IntVec a) {
  store_256(p, a.lo);
  store_256(p + 8, a.hi);
}

OFFRAMP_INLINE IntVec broadcast_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }

OFFRAMP_INLINE IntVec operator+(IntVec a, IntVec b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
OFFRAMP_INLINE IntVec operator-(IntVec a, IntVec b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
OFFRAMP_INLINE IntVec operator&(IntVec a, IntVec b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
OFFRAMP_INLINE IntVec operator|(IntVec a, IntVec b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
OFFRAMP_INLINE IntVec max(IntVec a, IntVec b) { return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)}; }

template <int bits>
OFFRAMP_INLINE IntVec shift_left(IntVec a) {
  return {_mm256_slli_epi32(a.lo, bits), _mm256_slli_epi32(a.hi, bits)};
}

template <int bits>
OFFRAMP_INLINE IntVec shift_right(IntVec a) {
  return {_mm256_srai_epi32(a.lo, bits), _mm256_srai_epi32(a.hi, bits)};
}

OFFRAMP_INLINE int32_t largest(IntVec a) {
  const __m256i eight = _mm256_max_epi32(a.lo, a.hi);
  const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

OFFRAMP_INLINE int32_t sum(IntVec a) {
  const __m256i eight = _mm256_add_epi32(a.lo, a.hi);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

OFFRAMP_INLINE Vec to_float(IntVec a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
OFFRAMP_INLINE IntVec round_int(Vec a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
OFFRAMP_INLINE IntVec as_int(Vec a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
OFFRAMP_INLINE Vec as_float(IntVec a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }

OFFRAMP_INLINE void store_short(int16_t* p, IntVec a) {
  // Packing works within halves of a register: lanes 0-3, 8-11, 4-7, 12-15.
  store_256(p, _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8));
}

// --- Mask

OFFRAMP_INLINE Mask less(Vec a, Vec b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
OFFRAMP_INLINE Mask equal(Vec a, Vec b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ)};
}
OFFRAMP_INLINE Mask first_lanes(int64_t n) {
  return {_mm256_castsi256_ps(below(n, 0)), _mm256_castsi256_ps(below(n, 8))};
}
OFFRAMP_INLINE Mask both(Mask a, Mask b) { return {_mm256_and_ps(a.lo, b.lo), _mm256_and_ps(a.hi, b.hi)}; }
OFFRAMP_INLINE Mask either(Mask a, Mask b) { return {_mm256_or_ps(a.lo, b.lo), _mm256_or_ps(a.hi, b.hi)}; }
OFFRAMP_INLINE Vec select(Mask mask, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, mask.lo), _mm256_blendv_ps(no.hi, yes.hi, mask.hi)};
}
OFFRAMP_INLINE IntVec select(Mask mask, IntVec yes, IntVec no) {
  return as_int(select(mask, as_float(yes), as_float(no)));
}

OFFRAMP_INLINE uint32_t bits(Mask mask) {
  const uint32_t lo = static_cast<uint32_t>(_mm256_movemask_ps(mask.lo));
  return lo | static_cast<uint32_t>(_mm256_movemask_ps(mask.hi)) << 8;
}

// --- Pairs

OFFRAMP_INLINE Pairs load_bytes(const uint8_t* p) {
  return {_mm256_cvtepu8_epi16(load_128(p)), _mm256_cvtepu8_epi16(load_128(p + 16))};
}

OFFRAMP_INLINE Pairs load_signed(const uint8_t* p) {
  return {_mm256_cvtepi8_epi16(load_128(p)), _mm256_cvtepi8_epi16(load_128(p + 16))};
}

OFFRAMP_INLINE Pairs load_shorts(const int16_t* p) { return {load_256(p), load_256(p + 16)}; }

OFFRAMP_INLINE void store_shorts(int16_t* p, Pairs a) {
  store_256(p, a.lo);
  store_256(p + 16, a.hi);
}

OFFRAMP_INLINE Pairs broadcast_pair(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  const __m256i all = _mm256_set1_epi32(pair);
  return {all, all};
}

OFFRAMP_INLINE Pairs low_nibbles(Pairs a) {
  const __m256i mask = _mm256_set1_epi16(15);
  return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
}

OFFRAMP_INLINE Pairs high_nibbles(Pairs a) { return {_mm256_srli_epi16(a.lo, 4), _mm256_srli_epi16(a.hi, 4)}; }

OFFRAMP_INLINE IntVec add_dots(IntVec acc, Pairs a, Pairs b) {
  acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(a.lo, b.lo));
  acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(a.hi, b.hi));
  // Otherwise GCC regroups the sums of a whole loop: it makes all products first, and runs out of registers.
  __asm__("" : "+x"(acc.lo), "+x"(acc.hi));
  return acc;
}

// Makes the compiler take the value for unknown, and for used.
OFFRAMP_INLINE void keep(Vec& a) { __asm__ volatile("" : "+x"(a.lo), "+x"(a.hi)); }
OFFRAMP_INLINE void keep(IntVec& a) { __asm__ volatile("" : "+x"(a.lo), "+x"(a.hi)); }
OFFRAMP_INLINE void keep(Pairs& a) { __asm__ volatile("" : "+x"(a.lo), "+x"(a.hi)); }

OFFRAMP_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
OFFRAMP_INLINE void forget_loads() { __asm__ volatile("" ::: "memory"); }

}  // namespace
}  // namespace offramp

#include "math.h"
