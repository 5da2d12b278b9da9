// Products with weights of i8, i4 and i4m: the dot product of a group of 32 inputs is exact in int32, then one fused
// multiply-add per group. Groups follow one another without waiting, so one chain of sums for each row hides latency.
// What comes after the dot products of a group costs as much as they do by the instruction, so it is kept short: the
// scale of a row's inputs is the same in all groups and comes last.

namespace offramp {
namespace {

// Bytes between a load and the prefetch for it, which runs on into the next panels. Of 2, 4, 8, 16 and 32 KiB, 16 is
// best for few rows (one row in 4.4 ms, against 4.9 at 4 KiB) and none is better for many.
constexpr int64_t kPrefetch = 16384;

// Adds the products of one group of weights with `rows` rows of inputs (q[r] at the group) to dot[r].
template <WeightType type, int rows>
OFFRAMP_INLINE void add_group(const uint8_t* w, const int16_t* const* q, int64_t at, IntVec (&dot)[rows]) {
  constexpr bool bytes = type == WeightType::i8;
  constexpr int loads = bytes ? 16 : 8;
#pragma GCC unroll 16
  for (int p = 0; p < loads; ++p) {
    const Pairs pairs = bytes ? load_signed(w + p * 32) : load_bytes(w + p * 32);
    const Pairs first = bytes ? pairs : low_nibbles(pairs);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const int16_t* input = q[r] + at + 2 * p;
      dot[r] = add_dots(dot[r], first, broadcast_pair(input));
      if constexpr (!bytes) dot[r] = add_dots(dot[r], high_nibbles(pairs), broadcast_pair(input + 16));
    }
  }
}

template <WeightType type, int rows>
void integer_block(const Matrix& w, const uint8_t* panel, const Rows& x, int64_t row, float* out, int64_t stride,
                   bool add) {
  constexpr int offset = type == WeightType::i4 ? 8 : 0;
  constexpr int64_t group_bytes = type == WeightType::i8 ? kGroup * kPanel : kGroup * kPanel / 2;
  constexpr int64_t group_stride =
      group_bytes + (type == WeightType::i4m ? 2 : 1) * kPanel * 2;  // with its part of the scales
  const int64_t groups = num_groups(w.k);
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(panel + groups * group_bytes);
  const uint16_t* minima = scales + groups * kPanel;

  Vec acc[rows];
  const int16_t* q[rows];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
    acc[r] = broadcast(0);
    q[r] = x.q + (row + r) * groups * kGroup;
  }
  const int32_t* x_sum = x.sum + row * groups;

  for (int64_t g = 0; g < groups; ++g) {
    const uint8_t* weights = panel + g * group_bytes;
    const uint8_t* ahead = panel + kPrefetch + g * group_stride;
    for (int64_t i = 0; i < group_stride; i += 64) prefetch(ahead + i);
    IntVec dot[rows];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) dot[r] = broadcast_int(offset != 0 ? -offset * x_sum[r * groups + g] : 0);
    add_group<type, rows>(weights, q, g * kGroup, dot);
    const Vec scale = load_half(scales + g * kPanel);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) acc[r] = fma(to_float(dot[r]), scale, acc[r]);
    if constexpr (type == WeightType::i4m) {
      const Vec minimum = load_half(minima + g * kPanel);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r)
        acc[r] = fma(minimum, broadcast(static_cast<float>(x_sum[r * groups + g])), acc[r]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
    float* target = out + r * stride;
    const Vec product = acc[r] * broadcast(x.scale[row + r]);
    store(target, add ? product + load(target) : product);
  }
}

template <WeightType type, int rows>
void integer_rows(const Matrix& w, const Rows& x, int64_t row, int64_t begin, int64_t end, float* out, int64_t stride,
                  bool add) {
  for (int64_t p = begin; p < end; ++p)
    integer_block<type, rows>(w, panel_of(w, p), x, row, out + (p - begin) * kPanel, stride, add);
}

}  // namespace
}  // namespace offramp
