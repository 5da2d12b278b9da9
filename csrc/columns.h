// The columns of panels that rows are packed into, one after the other.
#pragma once

#include <cstdint>
#include <cstring>

#include "group_codes.h"
#include "pack.h"

namespace offramp {

inline void clear_panel(WeightType type, uint8_t* panel, int64_t k) {
  std::memset(panel, 0, panel_bytes(type, k));
  if (is_integer(type)) std::memset(panel, zero_byte(type), panel_weight_bytes(type, k));
}

// Calls `put(panel, column, row)` for each of n rows, with the panel cleared before its first.
template <typename Put>
void for_columns(WeightType type, int64_t n, int64_t k, Target target, Put&& put) {
  for (int64_t row = 0; row < n; ++row) {
    uint8_t* panel = target.data + (target.first + row / kPanel * target.step) * panel_bytes(type, k);
    if (row % kPanel == 0) clear_panel(type, panel, k);
    put(panel, row % kPanel, row);
  }
}

}  // namespace offramp
