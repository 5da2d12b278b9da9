// A group of 32 weights of one output as integer codes, and where they lie in a panel.
#pragma once

#include <cstdint>

#include "weights.h"

namespace offramp {

struct GroupCodes {
  uint8_t code[kGroup];  // i8: two's complement; i4: weight + 8; i4m: 0..15
  uint16_t scale = 0;    // f16
  uint16_t minimum = 0;  // f16, i4m only
};

// The nearest codes for 32 floats; see pack_floats. A group with an infinity or a NaN gets scale NaN.
GroupCodes encode_group(WeightType type, const float* weights);

// The byte of the weight zero (both weights, for i4).
constexpr uint8_t zero_byte(WeightType type) { return type == WeightType::i4 ? 0x88 : 0; }

void put_group(WeightType type, uint8_t* panel, int64_t k, int64_t group, int64_t column, const GroupCodes& codes);
GroupCodes get_group(WeightType type, const uint8_t* panel, int64_t k, int64_t group, int64_t column);

}  // namespace offramp
