#include "rotary.h"

#include <algorithm>
#include <cmath>

namespace offramp {

void Rotary::reach(int64_t count) {
  if (count <= count_) return;
  count = std::max(count, count_ + count_ / 2 + 64);  // not again for every token
  table_.resize(static_cast<size_t>(count * 2 * half()));
  for (; count_ < count; ++count_) {
    float* at = table_.data() + count_ * 2 * half();
    for (const double frequency : frequencies_) {
      const double angle = static_cast<double>(count_) * frequency;
      at[0] = static_cast<float>(std::cos(angle) * factor_);
      at[half()] = static_cast<float>(std::sin(angle) * factor_);
      ++at;
    }
  }
}

}  // namespace offramp
