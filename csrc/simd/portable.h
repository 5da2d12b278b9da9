// Vectors of 16 lanes in plain C++: the definition of every operation, and the twin the other sets are tested against.
//
// What all sets share:
//   Vec       16 floats      load, load_first, load_half, load_bf16, store, store_first, store_half, broadcast,
//                            + - * /, fma, min, max, abs, sqrt, sum, largest
//   IntVec    16 int32       load_int, store_int, broadcast_int, + - & |, shift_left, shift_right,
//                            max, largest, sum, to_float, round_int, as_int, as_float, store_short
//   Mask      16 truths      less, equal, first_lanes, both, either, select, bits
//   Pairs     16 x 2 int16   load_bytes, load_signed, load_shorts, store_shorts, broadcast_pair,
//                            low_nibbles, high_nibbles, add_dots
// and, in math.h, what is built of these: exp.
//
// min and max return the second operand where either is NaN. `sum` and `largest` fold by halves: lane i with lane
// i + 8, then i + 4, i + 2, i + 1.
#pragma once

#include <cstdint>
#include <cstring>

#include "../numbers.h"

#define OFFRAMP_INLINE inline __attribute__((always_inline))

namespace offramp {
namespace {

constexpr int kLanes = 16;

struct Vec {
  float lane[kLanes];
};
struct IntVec {
  int32_t lane[kLanes];
};
struct Mask {
  bool lane[kLanes];
};
struct Pairs {
  int16_t lane[kLanes][2];
};

#define OFFRAMP_LANES for (int i = 0; i < kLanes; ++i)

OFFRAMP_INLINE Vec load(const float* p) {
  Vec r;
  std::memcpy(r.lane, p, sizeof r.lane);
  return r;
}

OFFRAMP_INLINE void store(float* p, Vec a) { std::memcpy(p, a.lane, sizeof a.lane); }

OFFRAMP_INLINE Vec broadcast(float x) {
  Vec r;
  OFFRAMP_LANES r.lane[i] = x;
  return r;
}

// The first n lanes; the others are 0 and their memory is not touched.
OFFRAMP_INLINE Vec load_first(const float* p, int64_t n) {
  Vec r = broadcast(0);
  for (int64_t i = 0; i < n && i < kLanes; ++i) r.lane[i] = p[i];
  return r;
}

OFFRAMP_INLINE void store_first(float* p, int64_t n, Vec a) {
  for (int64_t i = 0; i < n && i < kLanes; ++i) p[i] = a.lane[i];
}

OFFRAMP_INLINE Vec load_half(const uint16_t* p) {
  Vec r;
  OFFRAMP_LANES r.lane[i] = half_to_float(p[i]);
  return r;
}

OFFRAMP_INLINE Vec load_bf16(const uint16_t* p) {
  Vec r;
  OFFRAMP_LANES r.lane[i] = bf16_to_float(p[i]);
  return r;
}

OFFRAMP_INLINE void store_half(uint16_t* p, Vec a) { OFFRAMP_LANES p[i] = float_to_half(a.lane[i]); }

#define OFFRAMP_BINARY(name, expression)        \
  OFFRAMP_INLINE Vec name(Vec a, Vec b) {       \
    Vec r;                                      \
    OFFRAMP_LANES {                             \
      const float x = a.lane[i], y = b.lane[i]; \
      r.lane[i] = expression;                   \
    }                                           \
    return r;                                   \
  }
OFFRAMP_BINARY(operator+, x + y)
OFFRAMP_BINARY(operator-, x - y)
OFFRAMP_BINARY(operator*, x* y)
OFFRAMP_BINARY(operator/, x / y)
OFFRAMP_BINARY(min, x < y ? x : y)
OFFRAMP_BINARY(max, x > y ? x : y)
#undef OFFRAMP_BINARY

// a * b + c, rounded once.
OFFRAMP_INLINE float fma(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  // The product is exact in double. Rounding the sum to odd (if it was inexact, to the neighbour whose last bit is 1)
  // keeps what the second rounding, to float, must know (Boldo and Melquiond 2008).
  const double product = static_cast<double>(a) * b;
  const double addend = c;
  const double sum = product + addend;
  const double back = sum - product;
  const double error = (product - (sum - back)) + (addend - back);
  int64_t bits;
  std::memcpy(&bits, &sum, sizeof bits);
  const bool inexact = error < 0 || error > 0;  // false for a NaN
  const int64_t outward = (error > 0) == (sum > 0) ? 1 : -1;
  bits += inexact && (bits & 1) == 0 ? outward : 0;
  double odd;
  std::memcpy(&odd, &bits, sizeof odd);
  return static_cast<float>(odd);
#endif
}

OFFRAMP_INLINE Vec fma(Vec a, Vec b, Vec c) {
  Vec r;
  OFFRAMP_LANES r.lane[i] = fma(a.lane[i], b.lane[i], c.lane[i]);
  return r;
}

OFFRAMP_INLINE Vec abs(Vec a) {
  Vec r;
  OFFRAMP_LANES r.lane[i] = __builtin_fabsf(a.lane[i]);
  return r;
}

OFFRAMP_INLINE Vec sqrt(Vec a) {
  Vec r;
  OFFRAMP_LANES r.lane[i] = __builtin_sqrtf(a.lane[i]);
  return r;
}

OFFRAMP_INLINE float sum(Vec a) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) a.lane[i] += a.lane[i + width];
  return a.lane[0];
}

OFFRAMP_INLINE float largest(Vec a) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) a.lane[i] = a.lane[i] > a.lane[i + width] ? a.lane[i] : a.lane[i + width];
  return a.lane[0];
}

// --- IntVec

OFFRAMP_INLINE IntVec load_int(const int32_t* p) {
  IntVec r;
  std::memcpy(r.lane, p, sizeof r.lane);
  return r;
}

OFFRAMP_INLINE void store_int(int32_t* p, IntVec a) { std::memcpy(p, a.lane, sizeof a.lane); }

OFFRAMP_INLINE IntVec broadcast_int(int32_t x) {
  IntVec r;
  OFFRAMP_LANES r.lane[i] = x;
  return r;
}

// Sums wrap around.
#define OFFRAMP_BINARY(name, expression)                                                         \
  OFFRAMP_INLINE IntVec name(IntVec a, IntVec b) {                                               \
    IntVec r;                                                                                    \
    OFFRAMP_LANES {                                                                              \
      const uint32_t x = static_cast<uint32_t>(a.lane[i]), y = static_cast<uint32_t>(b.lane[i]); \
      r.lane[i] = static_cast<int32_t>(expression);                                              \
    }                                                                                            \
    return r;                                                                                    \
  }
OFFRAMP_BINARY(operator+, x + y)
OFFRAMP_BINARY(operator-, x - y)
OFFRAMP_BINARY(operator&, x& y)
OFFRAMP_BINARY(operator|, x | y)
#undef OFFRAMP_BINARY

OFFRAMP_INLINE IntVec max(IntVec a, IntVec b) {
  IntVec r;
  OFFRAMP_LANES r.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
  return r;
}

template <int bits>
OFFRAMP_INLINE IntVec shift_left(IntVec a) {
  IntVec r;
  OFFRAMP_LANES r.lane[i] = static_cast<int32_t>(static_cast<uint32_t>(a.lane[i]) << bits);
  return r;
}

// Of signed lanes.
template <int bits>
OFFRAMP_INLINE IntVec shift_right(IntVec a) {
  IntVec r;
  OFFRAMP_LANES r.lane[i] = a.lane[i] >> bits;
  return r;
}

OFFRAMP_INLINE int32_t largest(IntVec a) {
  int32_t best = a.lane[0];
  OFFRAMP_LANES best = a.lane[i] > best ? a.lane[i] : best;
  return best;
}

OFFRAMP_INLINE int32_t sum(IntVec a) {
  uint32_t total = 0;
  OFFRAMP_LANES total += static_cast<uint32_t>(a.lane[i]);
  return static_cast<int32_t>(total);
}

OFFRAMP_INLINE Vec to_float(IntVec a) {
  Vec r;
  OFFRAMP_LANES r.lane[i] = static_cast<float>(a.lane[i]);
  return r;
}

// To the nearest integer, ties to even; for |a| < 2^22.
OFFRAMP_INLINE IntVec round_int(Vec a) {
  IntVec r;
  OFFRAMP_LANES r.lane[i] = static_cast<int32_t>(float_bits(a.lane[i] + 0x1.8p23f) - 0x4b400000u);
  return r;
}

OFFRAMP_INLINE IntVec as_int(Vec a) {
  IntVec r;
  std::memcpy(r.lane, a.lane, sizeof r.lane);
  return r;
}

OFFRAMP_INLINE Vec as_float(IntVec a) {
  Vec r;
  std::memcpy(r.lane, a.lane, sizeof r.lane);
  return r;
}

// Stores lanes as int16; they must fit.
OFFRAMP_INLINE void store_short(int16_t* p, IntVec a) { OFFRAMP_LANES p[i] = static_cast<int16_t>(a.lane[i]); }

OFFRAMP_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
// What was loaded before is loaded again, where registers are too few to keep it.
OFFRAMP_INLINE void forget_loads() {}

#undef OFFRAMP_LANES

}  // namespace
}  // namespace offramp

#include "portable_pairs.h"

#include "math.h"
