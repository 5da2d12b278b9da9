// What is built of the vector operations, the same for every instruction set. Included by portable.h, avx2.h, avx512.h.
#pragma once

namespace offramp {
namespace {

// e^x to about 1 unit in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, e^r by a polynomial. exp(-inf) = 0,
// beyond 88.72 infinity, subnormal results as they should be; a NaN stays a NaN.
OFFRAMP_INLINE Vec exp(Vec x) {
  x = min(broadcast(89.0f), max(broadcast(-104.0f), x));  // NaN passes: it is the second operand
  const Vec magic = broadcast(0x1.8p23f);                 // adding it rounds to an integer
  const Vec shifted = fma(x, broadcast(0x1.715476p+0f), magic);
  const Vec n = shifted - magic;
  Vec r = fma(n, broadcast(-0x1.62e4p-1f), x);  // ln 2 in two parts; the first times n is exact
  r = fma(n, broadcast(-0x1.7f7d1cp-20f), r);
  Vec p = broadcast(0x1.6a241ap-10f);
  p = fma(p, r, broadcast(0x1.1239f2p-7f));
  p = fma(p, r, broadcast(0x1.5558f2p-5f));
  p = fma(p, r, broadcast(0x1.555492p-3f));
  p = fma(p, r, broadcast(0x1.fffffcp-2f));
  p = fma(p, r * r, r) + broadcast(1.0f);
  // 2^n in two factors: n reaches from -150 to 128.
  const IntVec exponent = as_int(shifted) - as_int(magic);
  const IntVec half = shift_right<1>(exponent);
  const IntVec bias = broadcast_int(127);
  const Vec first = as_float(shift_left<23>(half + bias));
  const Vec second = as_float(shift_left<23>(exponent - half + bias));
  return p * first * second;
}

}  // namespace
}  // namespace offramp
