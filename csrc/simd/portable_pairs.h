// The masks and the pairs of 16-bit integers of portable.h, which includes this file and says what they are.
#pragma once

#include "portable.h"

namespace offramp {
namespace {

#define OFFRAMP_LANES for (int i = 0; i < kLanes; ++i)

OFFRAMP_INLINE Mask less(Vec a, Vec b) {
  Mask r;
  OFFRAMP_LANES r.lane[i] = a.lane[i] < b.lane[i];
  return r;
}

OFFRAMP_INLINE Mask equal(Vec a, Vec b) {
  Mask r;
  OFFRAMP_LANES r.lane[i] = a.lane[i] == b.lane[i];
  return r;
}

// Lanes 0..n-1; n may be negative or beyond 16.
OFFRAMP_INLINE Mask first_lanes(int64_t n) {
  Mask r;
  OFFRAMP_LANES r.lane[i] = i < n;
  return r;
}

OFFRAMP_INLINE Mask both(Mask a, Mask b) {
  Mask r;
  OFFRAMP_LANES r.lane[i] = a.lane[i] && b.lane[i];
  return r;
}

OFFRAMP_INLINE Mask either(Mask a, Mask b) {
  Mask r;
  OFFRAMP_LANES r.lane[i] = a.lane[i] || b.lane[i];
  return r;
}

OFFRAMP_INLINE Vec select(Mask mask, Vec yes, Vec no) {
  Vec r;
  OFFRAMP_LANES r.lane[i] = mask.lane[i] ? yes.lane[i] : no.lane[i];
  return r;
}

OFFRAMP_INLINE IntVec select(Mask mask, IntVec yes, IntVec no) {
  IntVec r;
  OFFRAMP_LANES r.lane[i] = mask.lane[i] ? yes.lane[i] : no.lane[i];
  return r;
}

// Bit i is lane i.
OFFRAMP_INLINE uint32_t bits(Mask mask) {
  uint32_t r = 0;
  OFFRAMP_LANES r |= static_cast<uint32_t>(mask.lane[i]) << i;
  return r;
}

// --- Pairs

// 32 bytes, each widened without a sign.
OFFRAMP_INLINE Pairs load_bytes(const uint8_t* p) {
  Pairs r;
  OFFRAMP_LANES {
    r.lane[i][0] = p[2 * i];
    r.lane[i][1] = p[2 * i + 1];
  }
  return r;
}

// 32 bytes, each widened with its sign.
OFFRAMP_INLINE Pairs load_signed(const uint8_t* p) {
  Pairs r;
  OFFRAMP_LANES {
    r.lane[i][0] = static_cast<int8_t>(p[2 * i]);
    r.lane[i][1] = static_cast<int8_t>(p[2 * i + 1]);
  }
  return r;
}

OFFRAMP_INLINE Pairs load_shorts(const int16_t* p) {
  Pairs r;
  std::memcpy(r.lane, p, sizeof r.lane);
  return r;
}

OFFRAMP_INLINE void store_shorts(int16_t* p, Pairs a) { std::memcpy(p, a.lane, sizeof a.lane); }

OFFRAMP_INLINE Pairs broadcast_pair(const int16_t* p) {
  Pairs r;
  OFFRAMP_LANES std::memcpy(r.lane[i], p, 4);
  return r;
}

// The low or high four bits of the low byte of each element (whose high byte is 0).
OFFRAMP_INLINE Pairs low_nibbles(Pairs a) {
  Pairs r;
  OFFRAMP_LANES for (int j = 0; j < 2; ++j) r.lane[i][j] = static_cast<int16_t>(a.lane[i][j] & 15);
  return r;
}

OFFRAMP_INLINE Pairs high_nibbles(Pairs a) {
  Pairs r;
  OFFRAMP_LANES for (int j = 0; j < 2; ++j) r.lane[i][j] = static_cast<int16_t>(a.lane[i][j] >> 4);
  return r;
}

// acc + a0 * b0 + a1 * b1 in each lane; no sum may leave int32.
OFFRAMP_INLINE IntVec add_dots(IntVec acc, Pairs a, Pairs b) {
  IntVec r;
  OFFRAMP_LANES r.lane[i] = acc.lane[i] + a.lane[i][0] * b.lane[i][0] + a.lane[i][1] * b.lane[i][1];
  return r;
}

// Makes the compiler take the value for unknown, and for used.
template <typename T>
OFFRAMP_INLINE void keep(T& a) {
  __asm__ volatile("" : "+m"(a));
}

#undef OFFRAMP_LANES

}  // namespace
}  // namespace offramp
