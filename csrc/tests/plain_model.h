// A model in plain loops and double, a sequence at a time: what the real one must come close to.
#pragma once

#include <cmath>
#include <vector>

#include "toy_model.h"

namespace offramp {

using Doubles = std::vector<double>;

class PlainModel {
 public:
  explicit PlainModel(const Toy& toy) : toy_(toy), c_(toy.config) {}

  // Hidden states and K, V of one token.
  struct State {
    std::vector<Doubles> hidden;  // [boundaries + 1]; empty above the exit
    std::vector<Doubles> k, v;    // [layers]
  };

  // Runs a token at the next position as far as `exit` (a boundary), and passes the layers above.
  void add(int32_t token, int64_t exit) {
    State state;
    const auto position = static_cast<int64_t>(states.size());
    const std::vector<int64_t>& at = c_.layers_at;
    state.hidden.assign(at.size(), {});
    state.k.resize(toy_.layers.size());
    state.v.resize(toy_.layers.size());
    Doubles h = row(toy_.embedding, token);
    states.push_back(state);
    State& own = states.back();
    for (int64_t b = 0; b < exit; ++b) {
      for (int64_t layer = at[b]; layer < at[b + 1]; ++layer) run_layer(layer, position, &h);
      own.hidden[b + 1] = h;
    }
    for (int64_t layer = at[exit]; layer < at.back(); ++layer) {
      const Layer& l = toy_.layers[layer];
      const Doubles kv = project(l.passing, l.passing_bias, normalise(h, {}));
      own.k[layer] = key(l, kv.data(), position);
      own.v[layer] = value(kv.data() + kv_width());
    }
  }

  std::vector<State> states;

 private:
  int64_t kv_width() const { return round_up(c_.kv_heads * c_.head_dim, kPanel); }
  int64_t q_width() const { return round_up(c_.heads * c_.head_dim, kPanel); }

  static Doubles row(const Matrix& m, int64_t n) {
    std::vector<float> floats(static_cast<size_t>(m.k));
    unpack_row(m, n, floats.data());
    return Doubles(floats.begin(), floats.end());
  }

  static Doubles project(const Matrix& m, const std::vector<float>& bias, const Doubles& x) {
    Doubles out;
    for (int64_t n = 0; n < m.n; ++n) {
      const Doubles w = row(m, n);
      double sum = bias.empty() ? 0 : bias[n];
      for (int64_t k = 0; k < m.k; ++k) sum += w[k] * x[k];
      out.push_back(sum);
    }
    return out;
  }

  Doubles normalise(const Doubles& x, const std::vector<float>& weight) const {
    double squares = 0;
    for (const double value : x) squares += value * value;
    const double factor = 1 / std::sqrt(squares / static_cast<double>(x.size()) + c_.eps);
    Doubles y;
    for (size_t i = 0; i < x.size(); ++i) y.push_back(x[i] * factor * (weight.empty() ? 1 : weight[i]));
    return y;
  }

  // One head of q or k: its norm, and pairs (i, i + half) turned.
  Doubles turn(const double* from, const std::vector<float>& norm, int64_t position) const {
    Doubles x(from, from + c_.head_dim);
    if (!norm.empty()) x = normalise(x, norm);
    const int64_t half = c_.head_dim / 2;
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * c_.frequencies[i];
      const double cos = std::cos(angle) * c_.rope_factor, sin = std::sin(angle) * c_.rope_factor, a = x[i],
                   b = x[half + i];
      x[i] = a * cos - b * sin;
      x[half + i] = b * cos + a * sin;
    }
    return x;
  }

  double stored(double x) const {
    float single = static_cast<float>(x);
    if (!c_.half_kv) return single;
    uint16_t half;
    kernels().to_half(&single, 1, &half);
    kernels().from_half(&half, 1, &single);
    return single;
  }

  Doubles key(const Layer& layer, const double* projected, int64_t position) const {
    Doubles k;
    for (int64_t h = 0; h < c_.kv_heads; ++h) {
      for (const double x : turn(projected + h * c_.head_dim, layer.k_norm, position)) k.push_back(stored(x));
    }
    return k;
  }

  Doubles value(const double* projected) const {
    Doubles v;
    for (int64_t i = 0; i < c_.kv_heads * c_.head_dim; ++i) v.push_back(stored(projected[i]));
    return v;
  }

  Doubles attend(int64_t index, int64_t position, const double* projected) const {
    const Layer& layer = toy_.layers[index];
    const int64_t width = c_.head_dim, group = c_.heads / c_.kv_heads;
    const int64_t first = layer.window > 0 ? std::max<int64_t>(0, position - layer.window + 1) : 0;
    Doubles out;
    for (int64_t head = 0; head < c_.heads; ++head) {
      const Doubles q = turn(projected + head * width, layer.q_norm, position);
      const int64_t at = head / group * width;
      double total = 0;
      Doubles sums(static_cast<size_t>(width));
      for (int64_t p = first; p <= position; ++p) {
        double score = 0;
        for (int64_t c = 0; c < width; ++c) score += q[c] * states[p].k[index][at + c];
        const double weight = std::exp(score / std::sqrt(static_cast<double>(width)));
        total += weight;
        for (int64_t c = 0; c < width; ++c) sums[c] += weight * states[p].v[index][at + c];
      }
      for (const double sum : sums) out.push_back(sum / total);
    }
    return out;
  }

  void run_layer(int64_t index, int64_t position, Doubles* h) {
    const Layer& layer = toy_.layers[index];
    const Doubles qkv = project(layer.qkv, layer.qkv_bias, normalise(*h, layer.attention_norm));
    states[position].k[index] = key(layer, qkv.data() + q_width(), position);
    states[position].v[index] = value(qkv.data() + q_width() + kv_width());
    const Doubles out = project(layer.out, layer.out_bias, attend(index, position, qkv.data()));
    for (size_t i = 0; i < h->size(); ++i) (*h)[i] += out[i];
    const Doubles pairs = project(layer.gate_up, layer.gate_up_bias, normalise(*h, layer.mlp_norm));
    Doubles gated;
    for (int64_t i = 0; i < c_.intermediate; ++i) {
      const double gate = pairs[i / kPanel * 2 * kPanel + i % kPanel],
                   up = pairs[(i / kPanel * 2 + 1) * kPanel + i % kPanel];
      gated.push_back(gate / (1 + std::exp(-gate)) * up);
    }
    const Doubles down = project(layer.down, layer.down_bias, gated);
    for (size_t i = 0; i < h->size(); ++i) (*h)[i] += down[i];
  }

  const Toy& toy_;
  const Config& c_;
};

}  // namespace offramp
