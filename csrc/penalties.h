// Bias, masks, bans and penalties on logits, in the order of SamplingParams.
#pragma once

#include <cstdint>
#include <vector>

#include "head.h"

namespace offramp {

// What one thread needs to count columns, or tokens without one; all zero between calls.
struct Counts {
  std::vector<int32_t> of;       // [vocab]
  std::vector<int32_t> touched;  // those whose count is not zero

  void reserve(int64_t vocab);
};

// Applies a row's bias, mask, bans and penalties to its logits. False if nothing may be chosen because a positive bias
// names a token outside the head's vocabulary.
bool adjust(const ScoreRow& row, const Head& head, float* logits, Counts& counts);

}  // namespace offramp
