// Softmax statistics of a row of logits, put together from those of its stretches in ascending order.
#pragma once

#include <cstdint>

#include "head.h"
#include "kernels.h"

namespace offramp {

constexpr int64_t kStretch = 512;  // columns; a multiple of kPanel

// Of one stretch of a row.
struct StretchSums {
  Softmax softmax;      // argmax counts from the start of the stretch
  double tempered = 0;  // sum of exp((logit - best of the stretch) / temperature)
};

// Of a whole row.
struct RowSums {
  Softmax softmax;
  double tempered = 0;
};

// What is wanted of a row's logits, beyond the largest one.
struct Wanted {
  bool sums = false;
  bool tempered = false;
  double temperature = 1;
};

// Fills in `out` from the `n` logits of a stretch. `scratch` holds n floats.
void sum_stretch(const float* logits, int64_t n, const Wanted& wanted, float* scratch, StretchSums* out);

RowSums combine(const StretchSums* stretches, int64_t count, const Wanted& wanted);

// Writes the token features in `needs`, of a softmax over `outcomes`, or the least confident values if `silent`.
void write_features(const Softmax& softmax, int64_t outcomes, bool silent, uint32_t needs, float* features);

}  // namespace offramp
