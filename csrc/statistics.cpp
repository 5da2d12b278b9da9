#include "statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace offramp {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

float share(double x) { return static_cast<float>(std::min(std::max(x, 0.0), 1.0)); }

}  // namespace

void sum_stretch(const float* logits, int64_t n, const Wanted& wanted, float* scratch, StretchSums* out) {
  Softmax& softmax = out->softmax;
  kernels().softmax(logits, n, wanted.sums, &softmax);
  out->tempered = 0;
  if (!wanted.tempered || !(softmax.best > kNever)) return;
  // Within what a float holds, so that 0 stays 0 and -inf stays -inf.
  const float temperature = static_cast<float>(std::min(std::max(wanted.temperature, 1e-30), 1e30));
  for (int64_t i = 0; i < n; ++i) scratch[i] = (logits[i] - softmax.best) / temperature;
  Softmax tempered;
  kernels().softmax(scratch, n, true, &tempered);
  out->tempered = tempered.sum;
}

RowSums combine(const StretchSums* stretches, int64_t count, const Wanted& wanted) {
  RowSums row;
  Softmax& all = row.softmax;
  all.best = all.second = kNever;
  for (int64_t i = 0; i < count; ++i) {
    const Softmax& part = stretches[i].softmax;
    all.finite = all.finite && part.finite;
    if (part.best > all.best) {
      all.second = std::max(all.best, part.second);
      all.best = part.best;
      all.argmax = i * kStretch + part.argmax;
    } else {
      all.second = std::max(all.second, part.best);
    }
  }
  all.finite = all.finite && std::isfinite(all.best);
  if (!all.finite || !(wanted.sums || wanted.tempered)) return row;
  for (int64_t i = 0; i < count; ++i) {
    const double below = static_cast<double>(stretches[i].softmax.best) - all.best;
    if (!(below > kNever)) continue;  // all banned
    if (wanted.sums) {
      const double factor = std::exp(below);
      all.sum += factor * stretches[i].softmax.sum;
      all.dot += factor * (stretches[i].softmax.dot + below * stretches[i].softmax.sum);
    }
    if (wanted.tempered) row.tempered += std::exp(below / wanted.temperature) * stretches[i].tempered;
  }
  return row;
}

void write_features(const Softmax& softmax, int64_t outcomes, bool silent, uint32_t needs, float* features) {
  if (needs & max_prob) features[0] = silent ? 0 : share(1 / softmax.sum);
  if (needs & margin) {
    const double gap = 1 - std::exp(static_cast<double>(softmax.second) - softmax.best);
    features[1] = silent ? 0 : share(gap / softmax.sum);
  }
  if (needs & entropy) {
    const double nats = std::log(softmax.sum) - softmax.dot / softmax.sum;
    features[2] = silent ? 1 : share(nats / std::log(std::max<double>(2, static_cast<double>(outcomes))));
  }
}

}  // namespace offramp
