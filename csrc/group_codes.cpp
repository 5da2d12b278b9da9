#include "group_codes.h"

#include <cmath>
#include <cstring>
#include <initializer_list>

#include "numbers.h"

namespace offramp {

namespace {

constexpr uint16_t kHalfNaN = 0x7e00;

// To the nearest integer, ties to even; for |x| < 2^22.
int nearest(float x) { return static_cast<int>((x + 0x1.8p23f) - 0x1.8p23f); }

int clamp(int x, int low, int high) { return x < low ? low : x > high ? high : x; }

bool finite(const float* weights) {
  for (int64_t i = 0; i < kGroup; ++i)
    if (!std::isfinite(weights[i])) return false;
  return true;
}

// `scale` as f16, one step further from zero if rounding took it so far down that `steps` of it no longer reach `most`:
// that happens to subnormals.
uint16_t scale_half(float scale, float steps, float most) {
  const uint16_t half = float_to_half(scale);
  return std::fabs(half_to_float(half)) * steps < most ? static_cast<uint16_t>(half + 1) : half;
}

// x / scale, 0 where the scale is.
float quotient(float x, float scale) { return scale == 0 ? 0 : x / scale; }

void encode_i8(const float* w, GroupCodes& codes) {
  float most = 0;
  for (int64_t i = 0; i < kGroup; ++i) most = std::fmax(most, std::fabs(w[i]));
  codes.scale = scale_half(most / 127, 127.5f, most);
  const float scale = half_to_float(codes.scale);
  for (int64_t i = 0; i < kGroup; ++i)
    codes.code[i] = static_cast<uint8_t>(clamp(nearest(quotient(w[i], scale)), -127, 127));
}

void encode_i4(const float* w, GroupCodes& codes) {
  float most = 0;  // with its sign
  for (int64_t i = 0; i < kGroup; ++i)
    if (std::fabs(w[i]) > std::fabs(most)) most = w[i];
  codes.scale = scale_half(most / -8, 8.5f, std::fabs(most));
  const float scale = half_to_float(codes.scale);
  for (int64_t i = 0; i < kGroup; ++i)
    codes.code[i] = static_cast<uint8_t>(clamp(nearest(quotient(w[i], scale)), -8, 7) + 8);
}

// The codes for a scale and a minimum, and the sum of the squared errors.
float assign(const float* w, GroupCodes& codes) {
  const float scale = half_to_float(codes.scale), minimum = half_to_float(codes.minimum);
  float error = 0;
  for (int64_t i = 0; i < kGroup; ++i) {
    const int code = clamp(nearest(quotient(w[i] - minimum, scale)), 0, 15);
    const float left = w[i] - (scale * static_cast<float>(code) + minimum);
    codes.code[i] = static_cast<uint8_t>(code);
    error += left * left;
  }
  return error;
}

// The scale and minimum that fit the codes best.
void refit(const float* w, GroupCodes& codes) {
  float c = 0, cc = 0, x = 0, cx = 0;
  for (int64_t i = 0; i < kGroup; ++i) {
    const float code = codes.code[i];
    c += code;
    cc += code * code;
    x += w[i];
    cx += code * w[i];
  }
  constexpr float n = kGroup;
  const float spread = n * cc - c * c;
  if (spread == 0) return;
  const float scale = (n * cx - c * x) / spread;
  codes.scale = float_to_half(scale);
  codes.minimum = float_to_half((x - half_to_float(codes.scale) * c) / n);
}

void encode_i4m(const float* w, GroupCodes& codes) {
  float low = w[0], high = w[0];
  for (int64_t i = 1; i < kGroup; ++i) {
    low = std::fmin(low, w[i]);
    high = std::fmax(high, w[i]);
  }
  codes.minimum = float_to_half(low);
  codes.scale = scale_half((high - low) / 15, 15.5f, high - low);
  float best = assign(w, codes);
  // Cutting off the rarest ends of the range makes all steps finer. Each start is fitted twice; the best of all stays.
  for (const float cut : {0.0f, 0.04f, 0.08f}) {
    GroupCodes trial;
    trial.minimum = float_to_half(low + (high - low) * cut);
    trial.scale = float_to_half((high - low) * (1 - 2 * cut) / 15);
    for (int round = 0; round < 3; ++round) {
      const float error = assign(w, trial);
      if (error < best) {
        best = error;
        codes = trial;
      }
      refit(w, trial);
    }
  }
}

uint16_t* scales(WeightType type, uint8_t* panel, int64_t k) {
  return reinterpret_cast<uint16_t*>(panel + panel_weight_bytes(type, k));
}

}  // namespace

GroupCodes encode_group(WeightType type, const float* weights) {
  GroupCodes codes;
  if (!finite(weights)) {
    std::memset(codes.code, zero_byte(type) & (type == WeightType::i8 ? 255 : 15), kGroup);
    codes.scale = kHalfNaN;
    return codes;
  }
  if (type == WeightType::i8)
    encode_i8(weights, codes);
  else if (type == WeightType::i4)
    encode_i4(weights, codes);
  else
    encode_i4m(weights, codes);
  return codes;
}

void put_group(WeightType type, uint8_t* panel, int64_t k, int64_t group, int64_t column, const GroupCodes& codes) {
  uint16_t* scale = scales(type, panel, k) + group * kPanel + column;
  *scale = codes.scale;
  if (type == WeightType::i4m) scale[num_groups(k) * kPanel] = codes.minimum;
  const int64_t pairs = type == WeightType::i8 ? 16 : 8;
  uint8_t* bytes = panel + group * pairs * 32 + column * 2;
  for (int64_t p = 0; p < pairs; ++p) {
    for (int64_t j = 0; j < 2; ++j) {
      const int high = type == WeightType::i8 ? 0 : codes.code[16 + 2 * p + j] << 4;
      bytes[p * 32 + j] = static_cast<uint8_t>(codes.code[2 * p + j] | high);
    }
  }
}

GroupCodes get_group(WeightType type, const uint8_t* panel, int64_t k, int64_t group, int64_t column) {
  GroupCodes codes;
  const uint16_t* scale = scales(type, const_cast<uint8_t*>(panel), k) + group * kPanel + column;
  codes.scale = *scale;
  if (type == WeightType::i4m) codes.minimum = scale[num_groups(k) * kPanel];
  const int64_t pairs = type == WeightType::i8 ? 16 : 8;
  const uint8_t* bytes = panel + group * pairs * 32 + column * 2;
  for (int64_t p = 0; p < pairs; ++p) {
    for (int64_t j = 0; j < 2; ++j) {
      const uint8_t byte = bytes[p * 32 + j];
      if (type == WeightType::i8) {
        codes.code[2 * p + j] = byte;
      } else {
        codes.code[2 * p + j] = byte & 15;
        codes.code[16 + 2 * p + j] = byte >> 4;
      }
    }
  }
  return codes;
}

}  // namespace offramp
