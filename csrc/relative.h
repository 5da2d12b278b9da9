// Relative position biases (Raffel et al. 2020, T5), as attention reads them.
//
// What is added to a score depends on the head and on the offset, key position less query position. Offsets beyond
// `reach` on either side have the bias of the last one. The table of a head goes 16 entries past that on both sides, so
// that 16 neighbouring offsets, clamped as a whole, are always one load.
#pragma once

#include <cstdint>
#include <vector>

namespace offramp {

class RelativeBias {
 public:
  // [heads][2 reach + 1], of offsets -reach to reach; or none.
  RelativeBias(const std::vector<float>& biases, int64_t heads);

  // [bias_size(reach)] of a head; of the next head behind it. Null where there are none.
  const float* head(int64_t head) const;
  int64_t reach() const { return reach_; }

 private:
  int64_t reach_ = 0;
  std::vector<float> table_;
};

}  // namespace offramp
