#include "relative.h"

#include <algorithm>

#include "kernels.h"

namespace offramp {

RelativeBias::RelativeBias(const std::vector<float>& biases, int64_t heads) {
  const int64_t offsets = static_cast<int64_t>(biases.size()) / heads;
  if (offsets == 0) return;
  reach_ = offsets / 2;
  table_.reserve(static_cast<size_t>(heads * bias_size(reach_)));
  for (int64_t head = 0; head < heads; ++head) {
    const float* from = biases.data() + head * offsets;
    table_.insert(table_.end(), kPanel, from[0]);
    table_.insert(table_.end(), from, from + offsets);
    table_.insert(table_.end(), kPanel, from[offsets - 1]);
  }
}

const float* RelativeBias::head(int64_t head) const {
  return table_.empty() ? nullptr : table_.data() + head * bias_size(reach_);
}

}  // namespace offramp
