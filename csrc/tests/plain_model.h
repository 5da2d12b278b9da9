// A model in plain loops and double, a sequence at a time: what the real one must come close to.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "toy_model.h"

namespace offramp {

using Doubles = std::vector<double>;

class PlainModel {
 public:
  // `source`: what is attended to, where the model has an encoder.
  PlainModel(const Toy& toy, const std::vector<int32_t>& source) : toy_(toy), c_(toy.config) {
    if (toy.encoder) encode(source);
  }

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
      own.k[layer] = key(l, kv.data(), position, c_.half_kv);
      own.v[layer] = value(kv.data() + kv_width(), c_.half_kv);
    }
  }

  std::vector<State> states;
  std::vector<State> source;  // K and V of cross-attention; no hidden states

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
    const auto half = static_cast<int64_t>(c_.frequencies.size());
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * c_.frequencies[i];
      const double cos = std::cos(angle) * c_.rope_factor, sin = std::sin(angle) * c_.rope_factor, a = x[i],
                   b = x[half + i];
      x[i] = a * cos - b * sin;
      x[half + i] = b * cos + a * sin;
    }
    return x;
  }

  double stored(double x, bool half) const {
    float single = static_cast<float>(x);
    if (!half) return single;
    uint16_t bits;
    kernels().to_half(&single, 1, &bits);
    kernels().from_half(&bits, 1, &single);
    return single;
  }

  Doubles key(const Layer& layer, const double* projected, int64_t position, bool half) const {
    Doubles k;
    for (int64_t h = 0; h < c_.kv_heads; ++h) {
      for (const double x : turn(projected + h * c_.head_dim, layer.k_norm, position)) k.push_back(stored(x, half));
    }
    return k;
  }

  Doubles value(const double* projected, bool half) const {
    Doubles v;
    for (int64_t i = 0; i < c_.kv_heads * c_.head_dim; ++i) v.push_back(stored(projected[i], half));
    return v;
  }

  // What a query reads: K and V of positions [first, end) of a layer, biased by their offsets from `position`.
  struct View {
    const std::vector<State>& states;
    int64_t layer, first, end, position;
    const std::vector<float>* bias = nullptr;
  };

  double bias(const View& view, int64_t head, int64_t p) const {
    if (!view.bias || view.bias->empty()) return 0;
    const int64_t offsets = static_cast<int64_t>(view.bias->size()) / c_.heads, reach = offsets / 2;
    const int64_t offset = std::min(reach, std::max(-reach, p - view.position));
    return (*view.bias)[static_cast<size_t>(head * offsets + reach + offset)];
  }

  Doubles attend(const View& view, const Doubles& queries) const {
    const int64_t width = c_.head_dim, group = c_.heads / c_.kv_heads;
    Doubles out;
    for (int64_t head = 0; head < c_.heads; ++head) {
      const double* q = queries.data() + head * width;
      const int64_t at = head / group * width;
      double total = 0;
      Doubles sums(static_cast<size_t>(width));
      for (int64_t p = view.first; p < view.end; ++p) {
        double score = 0;
        for (int64_t c = 0; c < width; ++c) score += q[c] * view.states[p].k[view.layer][at + c];
        if (c_.scaled) score /= std::sqrt(static_cast<double>(width));
        const double weight = std::exp(score + bias(view, head, p));
        total += weight;
        for (int64_t c = 0; c < width; ++c) sums[c] += weight * view.states[p].v[view.layer][at + c];
      }
      for (const double sum : sums) out.push_back(sum / total);
    }
    return out;
  }

  Doubles queries(const Layer& layer, const Doubles& projected, int64_t position) const {
    Doubles all;
    for (int64_t head = 0; head < c_.heads; ++head) {
      const Doubles q = turn(projected.data() + head * c_.head_dim, layer.q_norm, position);
      all.insert(all.end(), q.begin(), q.end());
    }
    return all;
  }

  static void add_to(Doubles* h, const Doubles& x) {
    for (size_t i = 0; i < h->size(); ++i) (*h)[i] += x[i];
  }

  void run_layer(int64_t index, int64_t position, Doubles* h) {
    const Layer& layer = toy_.layers[index];
    const Doubles qkv = project(layer.qkv, layer.qkv_bias, normalise(*h, layer.attention_norm));
    states[position].k[index] = key(layer, qkv.data() + q_width(), position, c_.half_kv);
    states[position].v[index] = value(qkv.data() + q_width() + kv_width(), c_.half_kv);
    const int64_t first = layer.window > 0 ? std::max<int64_t>(0, position - layer.window + 1) : 0;
    const View own = {states, index, first, position + 1, position, &c_.bias};
    add_to(h, project(layer.out, layer.out_bias, attend(own, queries(layer, qkv, position))));
    if (layer.cross_q) {
      const Doubles q = project(layer.cross_q, {}, normalise(*h, layer.cross_norm));
      const View all = {source, index, 0, static_cast<int64_t>(source.size()), 0};
      add_to(h, project(layer.cross_out, {}, attend(all, q)));
    }
    feed_forward(layer, h);
  }

  void feed_forward(const Layer& layer, Doubles* h) const {
    const Doubles up = project(layer.gate_up, layer.gate_up_bias, normalise(*h, layer.mlp_norm));
    Doubles gated;
    for (int64_t i = 0; i < c_.intermediate; ++i) {
      if (!c_.gated()) {
        gated.push_back(std::max(0.0, up[i]));
        continue;
      }
      const double gate = up[i / kPanel * 2 * kPanel + i % kPanel];
      const double cubic = std::sqrt(2 / std::acos(-1.0)) * (gate + 0.044715 * gate * gate * gate);
      const double weight =
          c_.activation == Activation::silu ? 1 / (1 + std::exp(-gate)) : 0.5 * (1 + std::tanh(cubic));
      gated.push_back(gate * weight * up[(i / kPanel * 2 + 1) * kPanel + i % kPanel]);
    }
    add_to(h, project(layer.down, layer.down_bias, gated));
  }

  // A layer at a time over all of the source.
  void encode(const std::vector<int32_t>& tokens) {
    const Encoder& encoder = *toy_.encoder;
    const auto length = static_cast<int64_t>(tokens.size());
    std::vector<Doubles> hidden;
    for (const int32_t token : tokens) hidden.push_back(row(toy_.embedding, token));
    for (const Layer& layer : encoder.layers) {
      std::vector<State> seen(tokens.size());
      std::vector<Doubles> q;
      for (int64_t p = 0; p < length; ++p) {
        const Doubles qkv = project(layer.qkv, layer.qkv_bias, normalise(hidden[p], layer.attention_norm));
        q.push_back(queries(layer, qkv, p));
        seen[p].k = {key(layer, qkv.data() + q_width(), p, false)};
        seen[p].v = {value(qkv.data() + q_width() + kv_width(), false)};
      }
      for (int64_t p = 0; p < length; ++p) {
        const View all = {seen, 0, 0, length, p, &encoder.bias};
        add_to(&hidden[p], project(layer.out, layer.out_bias, attend(all, q[p])));
        feed_forward(layer, &hidden[p]);
      }
    }
    for (const Doubles& h : hidden) {
      State state;
      for (const Layer& layer : toy_.layers) {
        const Doubles kv = project(layer.cross_kv, {}, normalise(h, encoder.norm));
        state.k.push_back(key(layer, kv.data(), 0, c_.half_kv));
        state.v.push_back(value(kv.data() + kv_width(), c_.half_kv));
      }
      source.push_back(std::move(state));
    }
  }

  const Toy& toy_;
  const Config& c_;
};

}  // namespace offramp
