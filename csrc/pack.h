// Into and out of the packed layout of weights.h.
//
// Rows (outputs) [0, n) of a source go to the panels first, first + step, first + 2 step, ... of a destination, so that
// parts can lie one after the other (q, k, v) or alternate (gate, up). The rest of the last panel is zero. Panels do
// not depend on each other: threads may pack parts of a matrix at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weights.h"

namespace offramp {

// Where packed rows go: `data` has room for panel first + (num_panels(n) - 1) * step.
struct Target {
  uint8_t* data = nullptr;
  int64_t first = 0;
  int64_t step = 1;
};

// Rounds floats [n][k] to a type. f16 and bf16: to nearest even. i8: scale = max|w| / 127 of a group. i4: the scale
// sends the weight of largest magnitude to -8. i4m: scale and minimum are those of 16 evenly spaced levels from the
// smallest to the largest weight, then fitted by least squares. Scales and minima are rounded to f16 first.
void pack_floats(WeightType type, const float* source, int64_t n, int64_t k, Target target);

// Blocks of GGUF files. Q8_0 becomes i8, Q4_0 i4 or i4m (its minimum is -8 scales), Q4_1 i4m: bit for bit the same
// weights. Q4_K becomes i4m: a group's scale d * sc and minimum -dmin * m are rounded to f16, which moves a weight by
// at most 2^-11 of the larger of the two.
enum class BlockType : uint8_t { q8_0, q4_0, q4_1, q4_k };

constexpr bool can_hold(WeightType type, BlockType block) {
  if (block == BlockType::q8_0) return type == WeightType::i8;
  return type == WeightType::i4m || (type == WeightType::i4 && block == BlockType::q4_0);
}
constexpr int64_t block_weights(BlockType type) { return type == BlockType::q4_k ? 256 : 32; }
constexpr int64_t block_bytes(BlockType type) {
  return type == BlockType::q8_0 ? 34 : type == BlockType::q4_0 ? 18 : type == BlockType::q4_1 ? 20 : 144;
}

// `type` can hold `block`, and k is a multiple of block_weights(block).
void pack_blocks(BlockType block, WeightType type, const uint8_t* source, int64_t n, int64_t k, Target target);

// One row (output) as floats [k].
void unpack_row(const Matrix& matrix, int64_t row, float* out);

}  // namespace offramp
