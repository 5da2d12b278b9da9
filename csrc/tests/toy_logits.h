// Random logits and what the core makes of them, for tests of statistics, draws and penalties.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "descent.h"
#include "head.h"
#include "statistics.h"
#include "testing.h"

namespace offramp {

constexpr float kInf = std::numeric_limits<float>::infinity();

inline std::mt19937_64 random_bits(1);

inline float normal(float scale) { return std::normal_distribution<float>(0, scale)(random_bits); }
inline int64_t below(int64_t n) { return static_cast<int64_t>(random_bits() % static_cast<uint64_t>(n)); }
inline bool close(double a, double b, double tolerance) {
  return std::abs(a - b) <= tolerance * std::max(1.0, std::abs(b));
}

// Logits with ties and bans.
inline std::vector<float> random_logits(int64_t n, float scale) {
  std::vector<float> logits(static_cast<size_t>(n));
  for (float& x : logits) x = normal(scale);
  for (int64_t i = 0; i < n / 3; ++i) logits[below(n)] = logits[below(n)];
  for (int64_t i = 0; i < n / 10; ++i) logits[below(n)] = -kInf;
  if (below(2)) logits[below(n)] = logits[std::max_element(logits.begin(), logits.end()) - logits.begin()];
  if (*std::max_element(logits.begin(), logits.end()) == -kInf) logits[below(n)] = 1;
  return logits;
}

// A mask that allows one token in `rarity`, and bits beyond the vocabulary.
inline std::vector<uint8_t> random_mask(int64_t vocab, int64_t rarity) {
  std::vector<uint8_t> mask(static_cast<size_t>(vocab / 8 + 2), 0);
  for (size_t bit = 0; bit < 8 * mask.size(); ++bit) {
    if (below(rarity) == 0) mask[bit / 8] = static_cast<uint8_t>(mask[bit / 8] | 1u << bit % 8);
  }
  return mask;
}

// Columns of a row from the most likely down.
inline std::vector<int64_t> ordered(const std::vector<float>& logits) {
  std::vector<int64_t> columns(logits.size());
  std::iota(columns.begin(), columns.end(), 0);
  std::stable_sort(columns.begin(), columns.end(), [&](int64_t a, int64_t b) { return logits[a] > logits[b]; });
  return columns;
}

// Statistics of all stretches, and the row they make up.
struct Swept {
  std::vector<StretchSums> stretches;
  RowSums sums;
  Logits logits;

  Swept(const std::vector<float>& values, const Wanted& wanted) {
    const auto n = static_cast<int64_t>(values.size());
    std::vector<float> line(kStretch);
    stretches.resize(static_cast<size_t>(ceil_div(n, kStretch)));
    for (size_t i = 0; i < stretches.size(); ++i) {
      const int64_t first = static_cast<int64_t>(i) * kStretch;
      sum_stretch(values.data() + first, std::min(kStretch, n - first), wanted, line.data(), &stretches[i]);
    }
    sums = combine(stretches.data(), static_cast<int64_t>(stretches.size()), wanted);
    logits = {values.data(), n, sums.softmax.argmax, stretches.data()};
  }
};

inline Head plain_head(int64_t columns, std::vector<int32_t> ids = {}) {
  Head head;
  head.matrix.n = columns;
  head.ids = std::move(ids);
  return head;
}

// A head of every third token, with its index of columns.
inline Head reduced_head(int64_t columns, bool other) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < columns; ++i) ids.push_back(static_cast<int32_t>(3 * i + 1));
  Head head = plain_head(columns + (other ? 1 : 0), ids);
  head.other = other;
  head.columns.assign(static_cast<size_t>(3 * columns), -1);
  for (size_t i = 0; i < ids.size(); ++i) head.columns[ids[i]] = static_cast<int32_t>(i);
  return head;
}

}  // namespace offramp
