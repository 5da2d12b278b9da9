// Rotary position embedding (Su et al. 2021): cosines and sines by position, computed in double when first needed.
#pragma once

#include <cstdint>
#include <vector>

namespace offramp {

class Rotary {
 public:
  // Radians per position of each pair; cosine and sine are multiplied by `factor`.
  Rotary(std::vector<double> frequencies, double factor) : frequencies_(std::move(frequencies)), factor_(factor) {}

  // Makes the angles of positions [0, count) ready. Not while others read them.
  void reach(int64_t count);

  const float* cos(int64_t position) const { return table_.data() + position * 2 * half(); }
  const float* sin(int64_t position) const { return cos(position) + half(); }
  int64_t half() const { return static_cast<int64_t>(frequencies_.size()); }

 private:
  std::vector<double> frequencies_;
  double factor_;
  int64_t count_ = 0;
  std::vector<float> table_;  // [count][cos, sin][half]
};

}  // namespace offramp
