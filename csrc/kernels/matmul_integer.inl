// Products with weights of i8, i4 and i4m: the dot product of a group of 32 inputs is exact in int32, then one fused
// multiply-add per group. Integer sums may be made in any order, so they are split into as many chains as hide latency.

namespace offramp {
namespace {

// Adds the products of one group of weights with `rows` rows of inputs (q[r] at the group) to dot[r][0] + dot[r][1] +
// ...
template <WeightType type, int rows, int chains>
OFFRAMP_INLINE void add_group(const uint8_t* w, const int16_t* const* q, int64_t at, IntVec (&dot)[rows][chains]) {
  constexpr bool bytes = type == WeightType::i8;
  constexpr int loads = bytes ? 16 : 8, step = bytes || chains == 1 ? chains : chains / 2;
#pragma GCC unroll 16
  for (int p = 0; p < loads; p += step) {
#pragma GCC unroll 4
    for (int c = 0; c < step; ++c) {
      const Pairs pairs = load_bytes(w + (p + c) * 32);
      const Pairs first = bytes ? pairs : low_nibbles(pairs);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        const int16_t* input = q[r] + at + 2 * (p + c);
        IntVec& sum = dot[r][bytes ? c : 2 * c % chains];
        sum = add_dots(sum, first, broadcast_pair(input));
        if constexpr (!bytes) {
          IntVec& other = dot[r][(2 * c + 1) % chains];
          other = add_dots(other, high_nibbles(pairs), broadcast_pair(input + 16));
        }
      }
    }
  }
}

template <WeightType type, int rows>
void integer_block(const Matrix& w, const uint8_t* panel, const Rows& x, int64_t row, float* out, int64_t stride,
                   bool add) {
  constexpr int chains = rows >= kDotChains ? 1 : rows * 2 >= kDotChains ? 2 : 4;
  constexpr int offset = type == WeightType::i8 ? 128 : type == WeightType::i4 ? 8 : 0;
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
  const float* x_scale = x.scale + row * groups;
  const int32_t* x_sum = x.sum + row * groups;

  for (int64_t g = 0; g < groups; ++g) {
    const uint8_t* weights = panel + g * group_bytes;
    const uint8_t* ahead = panel + kReadAhead + g * group_stride;
    for (int64_t i = 0; i < group_stride; i += 64) prefetch(ahead + i);
    IntVec dot[rows][chains];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < chains; ++c) dot[r][c] = broadcast_int(c == 0 ? -offset * x_sum[r * groups + g] : 0);
    add_group<type, rows, chains>(weights, q, g * kGroup, dot);
    const Vec scale = load_half(scales + g * kPanel);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      IntVec total = dot[r][0];
#pragma GCC unroll 4
      for (int c = 1; c < chains; ++c) total = total + dot[r][c];
      const float input_scale = x_scale[r * groups + g];
      acc[r] = fma(to_float(total), scale * broadcast(input_scale), acc[r]);
      if constexpr (type == WeightType::i4m) {
        const float shift = input_scale * static_cast<float>(x_sum[r * groups + g]);
        acc[r] = fma(load_half(minima + g * kPanel), broadcast(shift), acc[r]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
    float* target = out + r * stride;
    store(target, add ? acc[r] + load(target) : acc[r]);
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
