// How weight matrices lie in memory.
//
// A matrix maps k inputs to n outputs. It is cut into panels of 16 outputs, each contiguous, so that a vector lane is
// an output, one input is broadcast to all lanes, and no sum ever crosses lanes. The last panel is padded with zero
// weights.
//
//   f32, f16, bf16   [k][16] elements
//   i8               [k/32][16][16][2] bytes, two's complement;             then [k/32][16] f16 scales
//   i4               [k/32][8][16][2] bytes, two weights + 8 in each;       then [k/32][16] f16 scales
//   i4m              as i4, weights 0..15 without an offset;                then [k/32][16] f16 scales and as many
//                                                                            f16 minima
//
// Integer types share a scale among 32 consecutive inputs of an output (a group); k is padded to a multiple of 32 with
// weights of value zero. Within a group, byte [p][c][j] holds output c and input 2p + j. In i4 and i4m, byte [p][c][j]
// holds input 2p + j in its low and input 16 + 2p + j in its high four bits.
//
//   i8: w = scale * byte     i4: w = scale * (nibble - 8)     i4m: w = scale * nibble + minimum
//
// A panel's size is rounded up to 64 bytes, so panels of an aligned matrix are aligned.
#pragma once

#include <cstddef>
#include <cstdint>

namespace offramp {

// Functions are `static`: each instruction set's file keeps its own copy, which the linker gives to no other.

constexpr int64_t kPanel = 16;  // outputs in a panel
constexpr int64_t kGroup = 32;  // inputs that share a scale
constexpr int64_t kAlign = 64;  // bytes

enum class WeightType : uint8_t { f32, f16, bf16, i8, i4, i4m };

static constexpr bool is_integer(WeightType type) { return type >= WeightType::i8; }

static constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

static constexpr int64_t num_groups(int64_t k) { return ceil_div(k, kGroup); }
static constexpr int64_t num_panels(int64_t n) { return ceil_div(n, kPanel); }

// Bytes of the weights of a panel, without scales and minima.
static constexpr int64_t panel_weight_bytes(WeightType type, int64_t k) {
  switch (type) {
    case WeightType::f32: return k * kPanel * 4;
    case WeightType::f16:
    case WeightType::bf16: return k * kPanel * 2;
    case WeightType::i8: return num_groups(k) * kGroup * kPanel;
    default: return num_groups(k) * kGroup * kPanel / 2;
  }
}

static constexpr int64_t panel_bytes(WeightType type, int64_t k) {
  const int64_t vectors = type == WeightType::i4m ? 2 : is_integer(type) ? 1 : 0;  // of f16 per group
  return round_up(panel_weight_bytes(type, k) + vectors * num_groups(k) * kPanel * 2, kAlign);
}

static constexpr int64_t matrix_bytes(WeightType type, int64_t n, int64_t k) {
  return num_panels(n) * panel_bytes(type, k);
}

// A view of a packed matrix; `data` is aligned to 64 bytes and holds matrix_bytes(type, n, k).
struct Matrix {
  WeightType type = WeightType::f32;
  int64_t n = 0;
  int64_t k = 0;
  const uint8_t* data = nullptr;

  int64_t panels() const { return num_panels(n); }
  const uint8_t* panel(int64_t index) const { return data + index * panel_bytes(type, k); }
  explicit operator bool() const { return data != nullptr; }
};

// For kernels: as Matrix::panel, but of the calling file alone.
static inline const uint8_t* panel_of(const Matrix& w, int64_t index) {
  return w.data + index * panel_bytes(w.type, w.k);
}

// Input rows of a matrix product. Float weights read `x`; integer weights read the quantised rows.
//
// Quantisation is per row to 16 bits: scale = max|x| / 32767, q = round to nearest even(x * (32767 / max|x|)), sum =
// the sum of q over a group of 32. 8 bits would cost 1.5% of the greedy choices of a 135M model; 16 bits cost none, and
// the dot product of a group is still exact in 32 bits. The tail of the last group is zero. A row with an infinity or a
// NaN gets scale NaN and q = 0, so all its outputs are NaN and no other row is touched. A row all of whose magnitudes
// are below kQuantizeFloor is zero, with scale 0: its scale would lose bits as a subnormal.
constexpr float kQuantizeFloor = 0x1p-100f;

struct Rows {
  int64_t count = 0;
  const float* x = nullptr;  // [count] rows, x_stride floats apart
  int64_t x_stride = 0;
  const int16_t* q = nullptr;    // [count][groups * 32]
  const float* scale = nullptr;  // [count]
  const int32_t* sum = nullptr;  // [count][groups]
};

}  // namespace offramp
