// Random heads of every kind, and what they compute in plain loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <utility>
#include <vector>

#include "head.h"
#include "pack.h"

namespace offramp {

constexpr float kEps = 1e-5f;
constexpr int64_t kHidden = 48, kVocab = 1200, kWidth = 20, kSlots = 80;
constexpr int kKinds = 42, kFirstWithPast = 30;  // of heads; those from the first on read the past

using Floats = std::vector<float>;

inline std::mt19937_64 bits_of_chance(1);

inline Floats random_floats(int64_t n, float scale) {
  std::normal_distribution<float> normal(0, scale);
  Floats values(static_cast<size_t>(n));
  for (float& x : values) x = normal(bits_of_chance);
  return values;
}

// A packed matrix and the floats it stands for [n][k].
struct Weights {
  std::vector<uint8_t> memory;
  Matrix packed;
  Floats rows;

  Weights(WeightType type, int64_t n, int64_t k, float scale) : rows(random_floats(n * k, scale)) {
    place(type, n, k);
    pack_floats(type, rows.data(), n, k, {const_cast<uint8_t*>(packed.data)});
    read_back();
  }

  // Two of n outputs, whose panels alternate; `rows` holds the first's, then the second's.
  static Weights alternating(WeightType type, int64_t n, int64_t k, float scale) {
    const int64_t padded = round_up(n, kPanel);
    Weights both(type, 2 * padded, k, 0);
    const Floats gate = random_floats(n * k, scale), up = random_floats(n * k, scale);
    auto* data = const_cast<uint8_t*>(both.packed.data);
    pack_floats(type, gate.data(), n, k, {data, 0, 2});
    pack_floats(type, up.data(), n, k, {data, 1, 2});
    both.read_back();
    const Floats mixed = both.rows;
    for (int64_t half = 0; half < 2; ++half) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t from = (2 * (i / kPanel) + half) * kPanel + i % kPanel;
        std::copy_n(mixed.data() + from * k, k, both.rows.data() + (half * n + i) * k);
      }
    }
    return both;
  }

 private:
  void place(WeightType type, int64_t n, int64_t k) {
    memory.resize(static_cast<size_t>(matrix_bytes(type, n, k) + kAlign));
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    packed = {type, n, k, memory.data() + (kAlign - address % kAlign) % kAlign};
  }
  void read_back() {
    for (int64_t i = 0; i < packed.n; ++i) unpack_row(packed, i, rows.data() + i * packed.k);
  }
};

// A head and the weights it points at.
struct Owned {
  Head head;
  std::vector<Weights> weights;

  const Floats& rows_of(const Matrix& matrix) const {
    for (const Weights& w : weights) {
      if (w.packed.data == matrix.data) return w.rows;
    }
    std::abort();
  }
};

inline Owned make_head(int kind, WeightType type) {
  Owned owned;
  Head& head = owned.head;
  owned.weights.reserve(5);
  const auto add = [&](Weights weights) {
    owned.weights.push_back(std::move(weights));
    return owned.weights.back().packed;
  };
  const bool reduced = kind % 2 == 1;
  head.other = kind % 4 == 3;
  int64_t columns = kVocab;
  if (reduced) {
    columns = kVocab / 2;
    for (int32_t i = 0; i < columns; ++i) head.ids.push_back(2 * i + 1);
  }
  head.matrix = add(Weights(type, columns + (head.other ? 1 : 0), kHidden, 0.4f));
  head.other_bias = head.other ? 8.0f : 0;
  head.has_norm = kind % 5 != 4;
  if (head.has_norm) head.norm = random_floats(kHidden, 1);
  head.temperature = kind % 3 == 2 ? 1.7f : 1;
  head.past = kind >= kFirstWithPast;
  if (head.past) {
    head.past_weight = add(Weights(type, kHidden, 2 * kHidden, 0.2f));
    head.past_hidden_norm = random_floats(kHidden, 1);
    head.past_state_norm = random_floats(kHidden, 1);
  }
  head.adapter = static_cast<Head::Adapter>(kind % 3);
  if (head.adapter == Head::Adapter::linear) {
    head.adapter_weight = add(Weights(type, kHidden, kHidden, 0.2f));
    head.adapter_bias = random_floats(kHidden, 1);
  } else if (head.adapter == Head::Adapter::mlp) {
    head.adapter_norm = random_floats(kHidden, 1);
    head.adapter_gate_up = add(Weights::alternating(type, kWidth, kHidden, 0.3f));
    head.adapter_down = add(Weights(type, kHidden, kWidth, 0.3f));
  }
  head.classifier = kind % 2 == 0 ? Head::Classifier::linear : Head::Classifier::mlp;
  if (head.classifier == Head::Classifier::linear) {
    head.classifier_weight = random_floats(kHidden, 0.2f);
    head.classifier_bias = 0.3f;
  } else {
    head.classifier_down = add(Weights(type, kWidth, kHidden, 0.3f));
    head.classifier_down_bias = random_floats(kWidth, 1);
    head.classifier_up = random_floats(kWidth, 0.5f);
    head.classifier_up_bias = -0.2f;
  }
  return owned;
}

using Doubles = std::vector<double>;

inline Doubles times(const Floats& rows, const Doubles& x, int64_t n) {
  const size_t k = x.size();
  Doubles y(static_cast<size_t>(n));
  for (size_t i = 0; i < y.size(); ++i) {
    for (size_t j = 0; j < k; ++j) y[i] += rows[i * k + j] * x[j];
  }
  return y;
}

inline Doubles norm(const Doubles& x, const Floats& weight) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + kEps);
  Doubles y(x);
  for (size_t i = 0; i < y.size(); ++i) y[i] *= scale * (weight.empty() ? 1 : weight[i]);
  return y;
}

inline double silu(double x) { return x / (1 + std::exp(-x)); }

// What a head reads at a hidden state, given the deep state of the token before, or null.
inline Floats joined_state(const Owned& owned, const float* state, const float* past) {
  const Head& head = owned.head;
  if (!head.past) return Floats(state, state + kHidden);
  Doubles pair = norm(Doubles(state, state + kHidden), head.past_hidden_norm);
  const Doubles before = past ? Doubles(past, past + kHidden) : Doubles(kHidden);
  const Doubles normed = norm(before, head.past_state_norm);
  pair.insert(pair.end(), normed.begin(), normed.end());
  const Doubles added = times(owned.rows_of(head.past_weight), pair, kHidden);
  Floats sum(kHidden);
  for (int64_t i = 0; i < kHidden; ++i) sum[i] = static_cast<float>(before[i] + added[i]);
  return sum;
}

// What meets the norm of a head, of what `joined_state` gave.
inline Doubles deep_state(const Owned& owned, const float* state) {
  const Head& head = owned.head;
  Doubles h(state, state + kHidden);
  if (head.adapter == Head::Adapter::linear) {
    const Doubles added = times(owned.rows_of(head.adapter_weight), h, kHidden);
    for (int64_t i = 0; i < kHidden; ++i) h[i] += added[i] + head.adapter_bias[i];
  } else if (head.adapter == Head::Adapter::mlp) {
    const Doubles both = times(owned.rows_of(head.adapter_gate_up), norm(h, head.adapter_norm), 2 * kWidth);
    Doubles gated(kWidth);
    for (int64_t i = 0; i < kWidth; ++i) gated[i] = silu(both[i]) * both[kWidth + i];
    const Doubles added = times(owned.rows_of(head.adapter_down), gated, kHidden);
    for (int64_t i = 0; i < kHidden; ++i) h[i] += added[i];
  }
  return h;
}

inline Doubles expected_logits(const Owned& owned, const float* state) {
  const Head& head = owned.head;
  const Doubles h = deep_state(owned, state);
  Doubles logits = times(owned.rows_of(head.matrix), head.has_norm ? norm(h, head.norm) : h, head.matrix.n);
  if (head.other) logits.back() += head.other_bias;
  for (double& x : logits) x /= head.temperature;
  return logits;
}

inline double expected_classifier(const Owned& owned, const float* state) {
  const Head& head = owned.head;
  Doubles x(state, state + kHidden);
  if (head.has_norm) x = norm(x, head.norm);
  double logit = head.classifier_bias;
  if (head.classifier == Head::Classifier::linear) {
    for (int64_t i = 0; i < kHidden; ++i) logit += head.classifier_weight[i] * x[i];
  } else {
    const Doubles low = times(owned.rows_of(head.classifier_down), x, kWidth);
    logit = head.classifier_up_bias;
    for (int64_t i = 0; i < kWidth; ++i) logit += head.classifier_up[i] * silu(low[i] + head.classifier_down_bias[i]);
  }
  return 1 / (1 + std::exp(-logit));
}

}  // namespace offramp
