// The table of kernels that every instruction set fills in, and the one chosen for this machine.
//
// All instruction sets compute the same bits: vectors have 16 lanes everywhere, every multiply-add is fused, and the
// order of every sum is part of a kernel's definition. So the portable table is the reference twin of the others. No
// result depends on how many rows are computed together.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weights.h"

namespace offramp {

// Queries of one sequence that share a key/value head, against that sequence's stored K and V of one layer.
//
// K is stored by block as [head_dim][block_size] and V as [block_size][head_dim], so that lanes are positions in the
// scores and channels in the sums. `type` of either is f16 or f32.
struct Attend {
  bool half = true;  // K and V are f16, else f32
  int64_t head_dim = 0;
  int64_t block_size = 0;
  int64_t rows = 0;                    // token rows
  int64_t group = 0;                   // query heads per row that share this key/value head
  const int64_t* positions = nullptr;  // [rows], ascending; row r sees positions (positions[r] - window, positions[r]]
  int64_t window = 0;                  // 0: all positions
  int64_t length = 0;                  // above 0, every row sees [0, length), and there is no window
  const float* q = nullptr;            // row r, head g at q + r * q_stride + g * head_dim
  int64_t q_stride = 0;
  float scale = 0;              // of the scores
  const float* bias = nullptr;  // [group][bias_size(reach)], added to the scores; null: nothing is. See RelativeBias
  int64_t reach = 0;            // the farthest offset that has a bias of its own
  const int32_t* blocks = nullptr;  // the sequence's block table, covering all that is seen
  const uint8_t* k = nullptr;       // block b at k + b * block_stride (bytes), already at this head
  const uint8_t* v = nullptr;
  int64_t block_stride = 0;  // bytes
  float* out = nullptr;      // row r, head g at out + r * out_stride + g * head_dim
  int64_t out_stride = 0;
  float* scratch = nullptr;  // attend_scratch(...) floats, aligned to 64 bytes, of the calling thread alone
};

// The softmax statistics of a stretch of logits.
struct Softmax {
  float best = 0;      // largest logit
  float second = 0;    // second largest (counts ties), -inf if there is one logit
  int64_t argmax = 0;  // first index of the largest
  double sum = 0;      // of exp(logit - best)
  double dot = 0;      // of exp(logit - best) * (logit - best)
  bool finite = true;  // no logit is NaN or +inf (-inf is a ban)
};

struct Kernels {
  const char* name;

  // One row of k inputs to int16; see Rows. Writes q[groups * 32], *scale, sum[groups].
  void (*quantize)(const float* x, int64_t k, int16_t* q, float* scale, int32_t* sum);

  // out[r][c] (+)= sum over k of w[c][k] x[r][k], for the panels [begin, end) of `w`. `out` points at row 0 of panel
  // `begin`; rows are `stride` floats apart; whole panels of 16 are written, padding included. `add` adds to what is
  // there.
  //
  // float weights: acc = fma(w, x, acc) over ascending k, from 0; then + out.
  // integer weights: acc = fma(float(dot of the group in int32), scale_w, acc) over ascending groups, from 0; for i4m
  //   followed, in each group, by acc = fma(minimum, float(sum), acc); then * scale_x; then + out.
  void (*matmul)(const Matrix& w, const Rows& x, int64_t begin, int64_t end, float* out, int64_t stride, bool add);

  // y = x / sqrt(mean(x^2) + eps) * weight; `weight` null: 1. Squares are summed in 16 lanes, folded by halves.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* y);

  // y = gate / (1 + exp(-gate)) * up. May be in place.
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);

  // y = gelu(gate) * up, with GELU's tanh approximation: gate / (1 + exp(-2 sqrt(2/pi) (gate + 0.044715 gate^3))) * up.
  void (*gelu_mul)(const float* gate, const float* up, int64_t n, float* y);

  // y = max(0, x); a NaN stays one.
  void (*relu)(const float* x, int64_t n, float* y);

  // x += y.
  void (*add)(float* x, const float* y, int64_t n);

  // Rotates the pairs (x[i], x[i + half]) of one head by cos[half], sin[half].
  void (*rotate)(float* x, const float* cos, const float* sin, int64_t half);

  void (*to_half)(const float* x, int64_t n, uint16_t* y);
  void (*from_half)(const uint16_t* x, int64_t n, float* y);

  // Scaled dot-product attention with a causal mask or none, in one pass over the positions in tiles of 16 absolute
  // positions (online softmax, Milakov and Gimelshein 2018), each query on its own.
  void (*attend)(const Attend& task);

  // max, second, argmax, and if `sums` the sums, of n logits in one or two sweeps.
  void (*softmax)(const float* logits, int64_t n, bool sums, Softmax* out);

  // The rates that `matmul` is held against, measured on registers alone: `steps` times so many independent fused
  // multiply-adds, or dot products of integer pairs, that nothing waits for the one before. Returns how many
  // multiplications that were.
  int64_t (*peak_float)(int64_t steps);
  int64_t (*peak_integer)(int64_t steps);
};

// Entries of a table of biases that reaches so far; see RelativeBias.
static constexpr int64_t bias_size(int64_t reach) { return 2 * (reach + kPanel) + 1; }

// Floats of scratch that `attend` needs for `rows` * `group` queries.
int64_t attend_scratch(int64_t rows, int64_t group, int64_t head_dim);

// What this machine can run, best first; "portable" is always last.
int supported_kernels(const Kernels* const** tables);

// The table in use: the best one, or what `choose_kernels` or the environment variable OFFRAMP_ISA names.
const Kernels& kernels();

// Use the table called `name`; false if this machine cannot.
bool choose_kernels(const char* name);

}  // namespace offramp
