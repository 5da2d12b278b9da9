// The columns of a row of logits from the most likely down, as far as somebody asks.
#pragma once

#include <cstdint>
#include <vector>

#include "statistics.h"

namespace offramp {

// One row of logits after adjustment. Its largest logit is finite.
struct Logits {
  const float* values = nullptr;  // [columns], "other" left out
  int64_t columns = 0;
  int64_t argmax = 0;  // the first column of the largest logit
  const StretchSums* stretches = nullptr;

  float best() const { return values[argmax]; }
};

struct Place {
  float logit;
  int32_t column;
};

// Hands out columns by falling logit; equal ones by ascending column; banned ones never. Works through bands of
// logits, each wider than the one before: few callers get past the first, and none has the vocabulary sorted.
class Descent {
 public:
  // `width` of the first band. `heap` is scratch.
  Descent(const Logits& logits, double width, std::vector<Place>* heap);

  bool next(Place* place);

 private:
  void gather();

  Logits logits_;
  std::vector<Place>* heap_;
  double width_;
  float above_;  // the band's upper edge, excluded
  float floor_;  // its lower edge, included
};

}  // namespace offramp
