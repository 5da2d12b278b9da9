// Products with weights of f32, f16 and bf16: one chain of fused multiply-adds over ascending k per output.

namespace offramp {
namespace {

// Bytes between a load and the prefetch for it: by the time the load itself comes up, arithmetic has filled the
// processor's window. 1 to 4 KiB measure alike; without, eight rows take up to twice as long, and one row of integers
// up to 1.4 times. One row of floats goes as fast as the hardware reads ahead by itself.
constexpr int64_t kReadAhead = 4096;

template <WeightType type>
OFFRAMP_INLINE Vec load_weights(const uint8_t* panel, int64_t k) {
  if constexpr (type == WeightType::f32) return load(reinterpret_cast<const float*>(panel) + k * kPanel);
  const uint16_t* p = reinterpret_cast<const uint16_t*>(panel) + k * kPanel;
  return type == WeightType::f16 ? load_half(p) : load_bf16(p);
}

// `panels` neighbouring panels for `rows` rows. The chains are independent, so there must be enough of them to hide the
// latency of a multiply-add, and few enough to stay in registers.
template <WeightType type, int rows, int panels>
void float_block(const Matrix& w, const uint8_t* panel, const float* x, int64_t x_stride, float* out, int64_t stride,
                 bool add) {
  const int64_t k = w.k, bytes = panel_bytes(type, k);
  constexpr int64_t size = type == WeightType::f32 ? 4 : 2;
  Vec acc[panels][rows];
#pragma GCC unroll 8
  for (int p = 0; p < panels; ++p)
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) acc[p][r] = broadcast(0);
  for (int64_t i = 0; i < k; ++i) {
    Vec weights[panels];
#pragma GCC unroll 8
    for (int p = 0; p < panels; ++p) {
      weights[p] = load_weights<type>(panel + p * bytes, i);
      if constexpr (rows > 1) prefetch(panel + p * bytes + i * kPanel * size + kReadAhead);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const Vec input = broadcast(x[r * x_stride + i]);
#pragma GCC unroll 8
      for (int p = 0; p < panels; ++p) acc[p][r] = fma(weights[p], input, acc[p][r]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < panels; ++p) {
      float* target = out + r * stride + p * kPanel;
      store(target, add ? acc[p][r] + load(target) : acc[p][r]);
    }
  }
}

template <WeightType type, int rows>
void float_rows(const Matrix& w, const Rows& x, int64_t row, int64_t begin, int64_t end, float* out, int64_t stride,
                bool add) {
  // Weights that must be widened need registers of their own.
  constexpr int chains = type == WeightType::f32 ? kFloatChains : kFloatChains - 2;
  constexpr int panels = rows * 2 > chains ? 1 : chains / rows > 4 ? 4 : chains / rows;
  const float* input = x.x + row * x.x_stride;
  int64_t p = begin;
  for (; p + panels <= end; p += panels)
    float_block<type, rows, panels>(w, panel_of(w, p), input, x.x_stride, out + (p - begin) * kPanel, stride, add);
  for (; p < end; ++p)
    float_block<type, rows, 1>(w, panel_of(w, p), input, x.x_stride, out + (p - begin) * kPanel, stride, add);
}

}  // namespace
}  // namespace offramp
