// Single numbers in 16 bits: IEEE half and bfloat16, rounded to nearest even as the hardware does.
//
// `static`, so that a file compiled for one instruction set never lends its copy to another.
#pragma once

#include <cstdint>
#include <cstring>

namespace offramp {

static inline uint32_t float_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float bits_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

static inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t rest = half & 0x7fff;
  if (rest >= 0x7c00) {  // infinity; a NaN is made quiet
    const uint32_t quiet = rest > 0x7c00 ? 0x400000 : 0;
    return bits_float(sign | 0x7f800000 | quiet | (rest & 0x3ff) << 13);
  }
  if (rest >= 0x400) return bits_float(sign | (rest + 0x1c000) << 13);
  const float magnitude = static_cast<float>(rest) * 0x1p-24f;  // subnormal or zero: exact
  return bits_float(sign | float_bits(magnitude));
}

static inline uint16_t float_to_half(float x) {
  const uint32_t bits = float_bits(x);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | (rest >> 13 & 0x3ff));
  if (rest >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds beyond 65504
  if (rest < 0x38800000) {
    // Subnormal: adding 0.5 puts the unit of 2^-24 at the lowest bit of the sum, which rounds there.
    const float sum = bits_float(rest) + 0.5f;
    return static_cast<uint16_t>(sign | (float_bits(sum) - 0x3f000000));
  }
  const uint32_t rounded = rest + 0xfff + (rest >> 13 & 1);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - 0x1c000));
}

static inline float bf16_to_float(uint16_t x) { return bits_float(static_cast<uint32_t>(x) << 16); }

static inline uint16_t float_to_bf16(float x) {
  const uint32_t bits = float_bits(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace offramp
