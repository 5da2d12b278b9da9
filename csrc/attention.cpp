// What attention needs beside its kernels (kernels/attention.inl).
#include "kernels.h"

namespace offramp {

int64_t attend_scratch(int64_t rows, int64_t group, int64_t head_dim) {
  constexpr int64_t kSpan = 64;
  const int64_t queries = rows * group, width = round_up(head_dim, kPanel);
  // Queries and sums, scores, totals, best scores; and a span of K or V as floats.
  return queries * (2 * width + kSpan + kPanel) + round_up(queries, kPanel) + kSpan * width;
}

}  // namespace offramp
