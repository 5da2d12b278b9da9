// Kernels that go over a row once: quantisation, norm, gate, sums, rotation, halves.

namespace offramp {
namespace {

// The bits of the largest magnitude. Magnitudes compare like their bits, and an infinity or a NaN is larger than every
// number.
OFFRAMP_INLINE int32_t largest_magnitude(const float* x, int64_t n) {
  const IntVec magnitude = broadcast_int(0x7fffffff);
  IntVec most = broadcast_int(0);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) most = max(most, as_int(load(x + i)) & magnitude);
  if (i < n) most = max(most, as_int(load_first(x + i, n - i)) & magnitude);
  return largest(most);
}

void quantize(const float* x, int64_t k, int16_t* q, float* scale, int32_t* sums) {
  const int32_t bits = largest_magnitude(x, k);
  const float max_abs = bits_float(static_cast<uint32_t>(bits));
  const bool finite = bits < 0x7f800000, zero = !finite || max_abs < kQuantizeFloor;
  *scale = !finite ? bits_float(0x7fc00000) : zero ? 0.0f : max_abs / 32767.0f;
  const Vec factor = broadcast(32767.0f / max_abs);
  for (int64_t begin = 0; begin < k; begin += kGroup, q += kGroup, ++sums) {
    IntVec a = broadcast_int(0), b = a;
    if (!zero) {
      const int64_t left = k - begin;
      a = round_int(load_first(x + begin, left) * factor);
      if (left > kLanes) b = round_int(load_first(x + begin + kLanes, left - kLanes) * factor);
    }
    store_short(q, a);
    store_short(q + kLanes, b);
    *sums = sum(a + b);
  }
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* y) {
  Vec squares = broadcast(0);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec a = load(x + i);
    squares = fma(a, a, squares);
  }
  if (i < n) {
    const Vec a = load_first(x + i, n - i);
    squares = fma(a, a, squares);
  }
  const float mean = sum(squares) / static_cast<float>(n);
  const Vec factor = broadcast(1.0f / __builtin_sqrtf(mean + eps));
  for (i = 0; i + kLanes <= n; i += kLanes) {
    const Vec a = load(x + i) * factor;
    store(y + i, weight ? a * load(weight + i) : a);
  }
  if (i < n) {
    const Vec a = load_first(x + i, n - i) * factor;
    store_first(y + i, n - i, weight ? a * load_first(weight + i, n - i) : a);
  }
}

OFFRAMP_INLINE Vec silu_mul(Vec gate, Vec up) {
  const Vec one = broadcast(1.0f);
  return gate / (one + exp(broadcast(-0.0f) - gate)) * up;
}

// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u)), which does not cancel where x is far below 0.
OFFRAMP_INLINE Vec gelu_mul(Vec gate, Vec up) {
  const Vec one = broadcast(1.0f);
  const Vec cubic = fma(broadcast(0.044715f) * gate * gate, gate, gate);
  return gate / (one + exp(broadcast(-0x1.988454p+0f) * cubic)) * up;  // -2 sqrt(2 / pi)
}

template <Vec (*gated)(Vec, Vec)>
OFFRAMP_INLINE void gate_rows(const float* gate, const float* up, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, gated(load(gate + i), load(up + i)));
  if (i < n) store_first(y + i, n - i, gated(load_first(gate + i, n - i), load_first(up + i, n - i)));
}

void silu_mul(const float* gate, const float* up, int64_t n, float* y) { gate_rows<silu_mul>(gate, up, n, y); }
void gelu_mul(const float* gate, const float* up, int64_t n, float* y) { gate_rows<gelu_mul>(gate, up, n, y); }

void relu(const float* x, int64_t n, float* y) {
  const Vec zero = broadcast(0);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, max(zero, load(x + i)));
  if (i < n) store_first(y + i, n - i, max(zero, load_first(x + i, n - i)));
}

void add(float* x, const float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, load(x + i) + load(y + i));
  if (i < n) store_first(x + i, n - i, load_first(x + i, n - i) + load_first(y + i, n - i));
}

void rotate(float* x, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t n = half - i < kLanes ? half - i : kLanes;
    const Vec a = load_first(x + i, n), b = load_first(x + half + i, n);
    const Vec c = load_first(cos + i, n), s = load_first(sin + i, n);
    store_first(x + i, n, fma(a, c, broadcast(-0.0f) - b * s));
    store_first(x + half + i, n, fma(b, c, a * s));
  }
}

void to_half(const float* x, int64_t n, uint16_t* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_half(y + i, load(x + i));
  for (; i < n; ++i) y[i] = float_to_half(x[i]);
}

void from_half(const uint16_t* x, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load_half(x + i));
  for (; i < n; ++i) y[i] = half_to_float(x[i]);
}

}  // namespace
}  // namespace offramp
