// Blocks of GGUF files: which of their bytes are which is defined by ggml.
#include "columns.h"
#include "group_codes.h"
#include "numbers.h"
#include "pack.h"

namespace offramp {

namespace {

uint16_t read_half(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }

// 32 codes from 16 bytes: inputs 0..15 in the low and 16..31 in the high four bits.
void read_nibbles(const uint8_t* bytes, uint8_t* code) {
  for (int64_t i = 0; i < 16; ++i) {
    code[i] = bytes[i] & 15;
    code[16 + i] = bytes[i] >> 4;
  }
}

// f16 scale, 32 signed bytes.
GroupCodes read_q8_0(const uint8_t* block) {
  GroupCodes codes;
  codes.scale = read_half(block);
  for (int64_t i = 0; i < kGroup; ++i) codes.code[i] = block[2 + i];
  return codes;
}

// f16 scale, 32 weights + 8. -8 scales as f16 are exact, short of infinity.
GroupCodes read_q4_0(const uint8_t* block) {
  GroupCodes codes;
  codes.scale = read_half(block);
  codes.minimum = float_to_half(-8 * half_to_float(codes.scale));
  read_nibbles(block + 2, codes.code);
  return codes;
}

// f16 scale, f16 minimum, 32 weights.
GroupCodes read_q4_1(const uint8_t* block) {
  GroupCodes codes;
  codes.scale = read_half(block);
  codes.minimum = read_half(block + 2);
  read_nibbles(block + 4, codes.code);
  return codes;
}

// f16 d, f16 dmin, 12 bytes with eight scales and eight minima of 6 bits, 128 bytes with eight groups of 32 weights.
// Two groups share 32 bytes: the even one has the low four bits. A weight is (d * scale) * code - dmin * minimum.
GroupCodes read_q4_k(const uint8_t* block, int64_t group) {
  const uint8_t* packed = block + 4;
  int scale, minimum;
  if (group < 4) {
    scale = packed[group] & 63;
    minimum = packed[group + 4] & 63;
  } else {
    scale = (packed[group + 4] & 15) | packed[group - 4] >> 6 << 4;
    minimum = packed[group + 4] >> 4 | packed[group] >> 6 << 4;
  }
  GroupCodes codes;
  codes.scale = float_to_half(half_to_float(read_half(block)) * static_cast<float>(scale));
  codes.minimum = float_to_half(-half_to_float(read_half(block + 2)) * static_cast<float>(minimum));
  const uint8_t* bytes = block + 16 + group / 2 * 32;
  for (int64_t i = 0; i < kGroup; ++i) codes.code[i] = group % 2 ? bytes[i] >> 4 : bytes[i] & 15;
  return codes;
}

GroupCodes read_group(BlockType type, const uint8_t* row, int64_t group) {
  switch (type) {
    case BlockType::q8_0: return read_q8_0(row + group * block_bytes(type));
    case BlockType::q4_0: return read_q4_0(row + group * block_bytes(type));
    case BlockType::q4_1: return read_q4_1(row + group * block_bytes(type));
    default: return read_q4_k(row + group / 8 * block_bytes(type), group % 8);
  }
}

}  // namespace

void pack_blocks(BlockType block, WeightType type, const uint8_t* source, int64_t n, int64_t k, Target target) {
  const int64_t row_bytes = k / block_weights(block) * block_bytes(block);
  for_columns(type, n, k, target, [&](uint8_t* panel, int64_t column, int64_t row) {
    for (int64_t group = 0; group < num_groups(k); ++group)
      put_group(type, panel, k, group, column, read_group(block, source + row * row_bytes, group));
  });
}

}  // namespace offramp
