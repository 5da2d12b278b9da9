#include "pack.h"

#include <algorithm>

#include "columns.h"
#include "group_codes.h"
#include "numbers.h"

namespace offramp {

namespace {

void put_floats(WeightType type, uint8_t* panel, int64_t begin, int64_t count, int64_t column, const float* weights) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = (begin + i) * kPanel + column;
    if (type == WeightType::f32)
      reinterpret_cast<float*>(panel)[at] = weights[i];
    else if (type == WeightType::f16)
      reinterpret_cast<uint16_t*>(panel)[at] = float_to_half(weights[i]);
    else
      reinterpret_cast<uint16_t*>(panel)[at] = float_to_bf16(weights[i]);
  }
}

}  // namespace

void pack_floats(WeightType type, const float* source, int64_t n, int64_t k, Target target) {
  for_columns(type, n, k, target, [&](uint8_t* panel, int64_t column, int64_t row) {
    for (int64_t group = 0; group < num_groups(k); ++group) {
      const int64_t begin = group * kGroup, count = std::min(kGroup, k - begin);
      float weights[kGroup] = {};
      std::copy_n(source + row * k + begin, count, weights);
      if (is_integer(type))
        put_group(type, panel, k, group, column, encode_group(type, weights));
      else
        put_floats(type, panel, begin, count, column, weights);
    }
  });
}

void unpack_row(const Matrix& matrix, int64_t row, float* out) {
  const WeightType type = matrix.type;
  const uint8_t* panel = matrix.panel(row / kPanel);
  const int64_t column = row % kPanel;
  if (!is_integer(type)) {
    for (int64_t i = 0; i < matrix.k; ++i) {
      const int64_t at = i * kPanel + column;
      if (type == WeightType::f32)
        out[i] = reinterpret_cast<const float*>(panel)[at];
      else if (type == WeightType::f16)
        out[i] = half_to_float(reinterpret_cast<const uint16_t*>(panel)[at]);
      else
        out[i] = bf16_to_float(reinterpret_cast<const uint16_t*>(panel)[at]);
    }
    return;
  }
  for (int64_t group = 0; group < num_groups(matrix.k); ++group) {
    const GroupCodes codes = get_group(type, panel, matrix.k, group, column);
    const float scale = half_to_float(codes.scale);
    const float minimum = half_to_float(codes.minimum);
    const int64_t count = std::min(kGroup, matrix.k - group * kGroup);
    for (int64_t i = 0; i < count; ++i) {
      const int code = type == WeightType::i8   ? static_cast<int8_t>(codes.code[i])
                       : type == WeightType::i4 ? codes.code[i] - 8
                                                : codes.code[i];
      const float weight = scale * static_cast<float>(code);
      out[group * kGroup + i] = type == WeightType::i4m ? weight + minimum : weight;
    }
  }
}

}  // namespace offramp
