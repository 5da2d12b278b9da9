// Vectors of 16 lanes as one register of AVX-512 (F, BW, DQ, VL, VNNI). What each operation means: portable.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../numbers.h"

#define OFFRAMP_INLINE inline __attribute__((always_inline))

namespace offramp {
namespace {

constexpr int kLanes = 16;

struct Vec {
  __m512 v;
};
struct IntVec {
  __m512i v;
};
struct Mask {
  __mmask16 v;
};
struct Pairs {
  __m512i v;
};

OFFRAMP_INLINE __mmask16 first_bits(int64_t n) {
  return static_cast<__mmask16>(n <= 0 ? 0 : n >= kLanes ? 0xffff : (1u << n) - 1);
}

OFFRAMP_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
OFFRAMP_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
OFFRAMP_INLINE Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
OFFRAMP_INLINE Vec load_first(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first_bits(n), p)}; }
OFFRAMP_INLINE void store_first(float* p, int64_t n, Vec a) { _mm512_mask_storeu_ps(p, first_bits(n), a.v); }

OFFRAMP_INLINE __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

OFFRAMP_INLINE Vec load_half(const uint16_t* p) { return {_mm512_cvtph_ps(load_256(p))}; }

OFFRAMP_INLINE Vec load_bf16(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(p)), 16))};
}

OFFRAMP_INLINE void store_half(uint16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

OFFRAMP_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
OFFRAMP_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
OFFRAMP_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
OFFRAMP_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
OFFRAMP_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
OFFRAMP_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
OFFRAMP_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
OFFRAMP_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
OFFRAMP_INLINE Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
OFFRAMP_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }

OFFRAMP_INLINE float sum(Vec a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

OFFRAMP_INLINE float largest(Vec a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// --- IntVec

OFFRAMP_INLINE IntVec load_int(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
OFFRAMP_INLINE void store_int(int32_t* p, IntVec a) { _mm512_storeu_si512(p, a.v); }
OFFRAMP_INLINE IntVec broadcast_int(int32_t x) { return {_mm512_set1_epi32(x)}; }
OFFRAMP_INLINE IntVec operator+(IntVec a, IntVec b) { return {_mm512_add_epi32(a.v, b.v)}; }
OFFRAMP_INLINE IntVec operator-(IntVec a, IntVec b) { return {_mm512_sub_epi32(a.v, b.v)}; }
OFFRAMP_INLINE IntVec operator&(IntVec a, IntVec b) { return {_mm512_and_si512(a.v, b.v)}; }
OFFRAMP_INLINE IntVec operator|(IntVec a, IntVec b) { return {_mm512_or_si512(a.v, b.v)}; }
OFFRAMP_INLINE IntVec max(IntVec a, IntVec b) { return {_mm512_max_epi32(a.v, b.v)}; }

template <int bits>
OFFRAMP_INLINE IntVec shift_left(IntVec a) {
  return {_mm512_slli_epi32(a.v, bits)};
}

template <int bits>
OFFRAMP_INLINE IntVec shift_right(IntVec a) {
  return {_mm512_srai_epi32(a.v, bits)};
}

OFFRAMP_INLINE int32_t largest(IntVec a) { return _mm512_reduce_max_epi32(a.v); }
OFFRAMP_INLINE int32_t sum(IntVec a) { return _mm512_reduce_add_epi32(a.v); }
OFFRAMP_INLINE Vec to_float(IntVec a) { return {_mm512_cvtepi32_ps(a.v)}; }
OFFRAMP_INLINE IntVec round_int(Vec a) { return {_mm512_cvtps_epi32(a.v)}; }
OFFRAMP_INLINE IntVec as_int(Vec a) { return {_mm512_castps_si512(a.v)}; }
OFFRAMP_INLINE Vec as_float(IntVec a) { return {_mm512_castsi512_ps(a.v)}; }

OFFRAMP_INLINE void store_short(int16_t* p, IntVec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a.v));
}

// --- Mask

OFFRAMP_INLINE Mask less(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
OFFRAMP_INLINE Mask equal(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
OFFRAMP_INLINE Mask first_lanes(int64_t n) { return {first_bits(n)}; }
OFFRAMP_INLINE Mask both(Mask a, Mask b) { return {static_cast<__mmask16>(a.v & b.v)}; }
OFFRAMP_INLINE Mask either(Mask a, Mask b) { return {static_cast<__mmask16>(a.v | b.v)}; }
OFFRAMP_INLINE Vec select(Mask mask, Vec yes, Vec no) { return {_mm512_mask_blend_ps(mask.v, no.v, yes.v)}; }
OFFRAMP_INLINE IntVec select(Mask mask, IntVec yes, IntVec no) {
  return {_mm512_mask_blend_epi32(mask.v, no.v, yes.v)};
}
OFFRAMP_INLINE uint32_t bits(Mask mask) { return mask.v; }

// --- Pairs

OFFRAMP_INLINE Pairs load_bytes(const uint8_t* p) { return {_mm512_cvtepu8_epi16(load_256(p))}; }
OFFRAMP_INLINE Pairs load_signed(const uint8_t* p) { return {_mm512_cvtepi8_epi16(load_256(p))}; }
OFFRAMP_INLINE Pairs load_shorts(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
OFFRAMP_INLINE void store_shorts(int16_t* p, Pairs a) { _mm512_storeu_si512(p, a.v); }

OFFRAMP_INLINE Pairs broadcast_pair(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return {_mm512_set1_epi32(pair)};
}

OFFRAMP_INLINE Pairs low_nibbles(Pairs a) { return {_mm512_and_si512(a.v, _mm512_set1_epi16(15))}; }
OFFRAMP_INLINE Pairs high_nibbles(Pairs a) { return {_mm512_srli_epi16(a.v, 4)}; }
OFFRAMP_INLINE IntVec add_dots(IntVec acc, Pairs a, Pairs b) { return {_mm512_dpwssd_epi32(acc.v, a.v, b.v)}; }

// Makes the compiler take the value for unknown, and for used.
OFFRAMP_INLINE void keep(Vec& a) { __asm__ volatile("" : "+v"(a.v)); }
OFFRAMP_INLINE void keep(IntVec& a) { __asm__ volatile("" : "+v"(a.v)); }
OFFRAMP_INLINE void keep(Pairs& a) { __asm__ volatile("" : "+v"(a.v)); }

OFFRAMP_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
OFFRAMP_INLINE void forget_loads() {}

}  // namespace
}  // namespace offramp

#include "math.h"
