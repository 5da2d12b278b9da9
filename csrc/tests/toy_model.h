// Small random models.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "model.h"
#include "operand.h"
#include "pack.h"
#include "testing.h"

namespace offramp {

// All that a model is made of. Matrices point into `memory`, so it must outlive the models made of it.
struct Toy {
  Config config;
  Matrix embedding;
  std::vector<Layer> layers;
  std::vector<Head> heads;
  std::optional<Encoder> encoder;
  std::vector<std::unique_ptr<Buffer<uint8_t>>> memory;

  std::unique_ptr<Model> model(int64_t block_size, int64_t num_blocks, int threads, int64_t source_blocks = 1) const {
    Config c = config;
    c.block_size = block_size;
    c.num_blocks = num_blocks;
    std::optional<Encoder> half = encoder;
    if (half) half->num_blocks = source_blocks;
    return std::make_unique<Model>(c, embedding, layers, heads, threads, std::move(half));
  }
};

class ToyMaker {
 public:
  explicit ToyMaker(Random& random) : random_(random) {}

  // Sizes that are multiples of nothing, or of what fast paths ask for.
  static Config random_config(Random& random) {
    const bool round = random.chance(3);
    Config c;
    c.hidden = round ? 32 * random.between(1, 3) : random.between(3, 50);
    c.intermediate = round ? 32 * random.between(1, 3) : random.between(1, 70);
    c.kv_heads = random.between(1, 3);
    c.heads = c.kv_heads * random.between(1, 4);
    c.head_dim = round ? random.one_of<int64_t>({16, 32}) : 2 * random.between(1, 12);
    c.vocab = random.between(2, 40);
    c.max_positions = 200;
    c.eps = 1e-5f;
    for (int64_t i = 0; i < c.head_dim / 2; ++i) c.frequencies.push_back(1.0 / static_cast<double>(1 + 3 * i));
    c.rope_factor = random.chance(4) ? 1.1 : 1;
    c.layers_at = {0};
    for (int64_t i = random.between(1, 3); i > 0; --i) c.layers_at.push_back(c.layers_at.back() + random.between(1, 2));
    c.half_kv = random.chance(2);
    if (random.chance(2)) make_relative(random, &c);
    return c;
  }

  // Positions enter as those of T5 do.
  static void make_relative(Random& random, Config* c) {
    c->frequencies.clear();
    if (random.chance(3)) ++c->head_dim;
    c->bias = random_bias(random, c->heads);
    c->scaled = random.chance(3);
    c->activation = random.one_of({Activation::silu, Activation::gelu, Activation::relu});
  }

  Toy make(const Config& config) {
    toy_ = Toy();
    toy_.config = config;
    const bool crosses = config.frequencies.empty() && !random_.chance(4);
    biased_ = random_.chance(2);
    normed_ = !crosses && random_.chance(2);
    kind_ = random_.chance(3) ? -1 : random_.below(6);
    toy_.embedding = matrix(config.vocab, {{config.vocab, 0, 1}}, config.hidden, 1);
    for (int64_t i = 0; i < config.layers_at.back(); ++i) toy_.layers.push_back(decoder_layer(crosses));
    if (crosses) toy_.encoder = encoder();
    for (size_t i = 1; i < config.layers_at.size(); ++i) {
      Head head;
      head.matrix = matrix(config.vocab, {{config.vocab, 0, 1}}, config.hidden, 1);
      head.norm = norm(config.hidden);
      toy_.heads.push_back(std::move(head));
    }
    return std::move(toy_);
  }

 private:
  // Rows [0, rows) of a part go to panels first, first + step, ...
  struct Part {
    int64_t rows, first, step;
  };

  static std::vector<float> random_bias(Random& random, int64_t heads) {
    std::vector<float> bias(static_cast<size_t>(heads * (2 * random.one_of<int64_t>({0, 1, 7, 40}) + 1)));
    for (float& value : bias) value = random.normal();
    return bias;
  }

  std::vector<float> normals(int64_t count, float scale) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = scale * random_.normal();
    return values;
  }

  std::vector<float> norm(int64_t count) {
    std::vector<float> values = normals(count, 0.3f);
    for (float& value : values) value += 1;
    return values;
  }

  Matrix matrix(int64_t n, const std::vector<Part>& parts, int64_t k, float scale) {
    Matrix m;
    m.type = static_cast<WeightType>(kind_ < 0 ? random_.below(6) : kind_);  // one type for all, or one for each
    m.n = n;
    m.k = k;
    const int64_t bytes = matrix_bytes(m.type, n, k);
    toy_.memory.push_back(std::make_unique<Buffer<uint8_t>>());
    uint8_t* data = toy_.memory.back()->reserve(bytes);
    std::fill(data, data + bytes, uint8_t{0});
    for (const Part& part : parts) {
      pack_floats(m.type, normals(part.rows * k, scale).data(), part.rows, k, {data, part.first, part.step});
    }
    m.data = data;
    return m;
  }

  // Biases of the columns of `parts`; 0 in the padding.
  std::vector<float> bias(int64_t n, const std::vector<Part>& parts) {
    if (!biased_) return {};
    std::vector<float> values(static_cast<size_t>(round_up(n, kPanel)));
    for (const Part& part : parts) {
      for (int64_t i = 0; i < part.rows; ++i) {
        values[(part.first + i / kPanel * part.step) * kPanel + i % kPanel] = 0.1f * random_.normal();
      }
    }
    return values;
  }

  Layer layer() {
    const Config& c = toy_.config;
    const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    const int64_t q_panels = num_panels(q), kv_panels = num_panels(kv), gates = c.gated() ? 2 : 1;
    const float scale = 0.7f / std::sqrt(static_cast<float>(c.hidden));
    Layer layer;
    layer.attention_norm = norm(c.hidden);
    layer.mlp_norm = norm(c.hidden);
    if (normed_) {
      layer.q_norm = norm(c.head_dim);
      layer.k_norm = norm(c.head_dim);
    }
    const int64_t qkv_n = kPanel * (q_panels + 2 * kv_panels), up_n = gates * kPanel * num_panels(c.intermediate);
    const std::vector<Part> qkv = {{q, 0, 1}, {kv, q_panels, 1}, {kv, q_panels + kv_panels, 1}};
    const std::vector<Part> whole = {{c.hidden, 0, 1}};
    std::vector<Part> gate_up = {{c.intermediate, 0, gates}};
    if (c.gated()) gate_up.push_back({c.intermediate, 1, gates});
    layer.qkv = matrix(qkv_n, qkv, c.hidden, scale);
    layer.out = matrix(c.hidden, whole, q, scale);
    layer.gate_up = matrix(up_n, gate_up, c.hidden, scale);
    layer.down = matrix(c.hidden, whole, c.intermediate, scale);
    layer.qkv_bias = bias(qkv_n, qkv);
    layer.out_bias = bias(c.hidden, whole);
    layer.gate_up_bias = bias(up_n, gate_up);
    layer.down_bias = bias(c.hidden, whole);
    return layer;
  }

  Layer decoder_layer(bool crosses) {
    const Config& c = toy_.config;
    const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim, kv_panels = num_panels(kv);
    const float scale = 0.7f / std::sqrt(static_cast<float>(c.hidden));
    const std::vector<Part> pair = {{kv, 0, 1}, {kv, kv_panels, 1}};
    Layer made = layer();
    made.passing = matrix(kPanel * 2 * kv_panels, pair, c.hidden, scale);
    if (!crosses) made.passing_bias = bias(kPanel * 2 * kv_panels, pair);
    made.window = random_.chance(3) ? random_.between(1, 30) : 0;
    if (!crosses) return made;
    made.cross_norm = norm(c.hidden);
    made.cross_q = matrix(kPanel * num_panels(q), {{q, 0, 1}}, c.hidden, scale);
    made.cross_kv = matrix(kPanel * 2 * kv_panels, pair, c.hidden, scale);
    made.cross_out = matrix(c.hidden, {{c.hidden, 0, 1}}, q, scale);
    return made;
  }

  Encoder encoder() {
    Encoder encoder;
    for (int64_t i = random_.between(1, 2); i > 0; --i) encoder.layers.push_back(layer());
    encoder.bias = random_bias(random_, toy_.config.heads);
    encoder.norm = norm(toy_.config.hidden);
    encoder.max_length = 90;
    return encoder;
  }

  Random& random_;
  Toy toy_;
  bool biased_ = false, normed_ = false;
  int64_t kind_ = 0;
};

}  // namespace offramp
