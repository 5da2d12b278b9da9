#include "check.h"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace offramp {
namespace {

constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();  // of any size: products of two fit 64 bits

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

void check_size(const char* name, int64_t size) {
  if (size >= 1 && size <= kLargest) return;
  refuse(std::string(name) + " must be 1 to " + std::to_string(kLargest) + ", not " + std::to_string(size));
}

void check_matrix(const std::string& name, const Matrix& matrix, int64_t n, int64_t k) {
  if (!matrix.data) refuse(name + " is missing");
  if (matrix.n != n || matrix.k != k) {
    refuse(name + " is " + std::to_string(matrix.n) + " x " + std::to_string(matrix.k) + ", not " + std::to_string(n) +
           " x " + std::to_string(k));
  }
  if (reinterpret_cast<uintptr_t>(matrix.data) % kAlign != 0) refuse(name + " is not aligned to 64 bytes");
}

void check_floats(const std::string& name, const std::vector<float>& values, int64_t count, bool optional) {
  if (optional && values.empty()) return;
  if (static_cast<int64_t>(values.size()) != count) {
    refuse(name + " has " + std::to_string(values.size()) + " values, not " + std::to_string(count));
  }
}

void check_layer(const Config& c, const Layer& layer, const std::string& of) {
  const int64_t q = round_up(c.heads * c.head_dim, kPanel), kv = round_up(c.kv_heads * c.head_dim, kPanel);
  const int64_t gate_up = (c.gated() ? 2 : 1) * round_up(c.intermediate, kPanel);
  check_matrix(of + "qkv", layer.qkv, q + 2 * kv, c.hidden);
  check_matrix(of + "out", layer.out, c.hidden, c.heads * c.head_dim);
  check_matrix(of + "gate_up", layer.gate_up, gate_up, c.hidden);
  check_matrix(of + "down", layer.down, c.hidden, c.intermediate);
  check_floats(of + "attention_norm", layer.attention_norm, c.hidden, false);
  check_floats(of + "mlp_norm", layer.mlp_norm, c.hidden, false);
  check_floats(of + "q_norm", layer.q_norm, c.head_dim, true);
  check_floats(of + "k_norm", layer.k_norm, c.head_dim, true);
  check_floats(of + "qkv_bias", layer.qkv_bias, q + 2 * kv, true);
  check_floats(of + "out_bias", layer.out_bias, round_up(c.hidden, kPanel), true);
  check_floats(of + "gate_up_bias", layer.gate_up_bias, gate_up, true);
  check_floats(of + "down_bias", layer.down_bias, round_up(c.hidden, kPanel), true);
  if (layer.window < 0) refuse(of + "window is negative");
}

// What a layer of a decoder has, and with an encoder.
void check_decoder_layer(const Config& c, const Layer& layer, const std::string& of, bool crosses) {
  const int64_t q = round_up(c.heads * c.head_dim, kPanel), kv = round_up(c.kv_heads * c.head_dim, kPanel);
  check_layer(c, layer, of);
  check_matrix(of + "passing", layer.passing, 2 * kv, c.hidden);
  check_floats(of + "passing_bias", layer.passing_bias, 2 * kv, true);
  if (!crosses) {
    if (layer.cross_q || layer.cross_kv || layer.cross_out) refuse(of + "there is no source to attend to");
    return;
  }
  check_matrix(of + "cross_q", layer.cross_q, q, c.hidden);
  check_matrix(of + "cross_kv", layer.cross_kv, 2 * kv, c.hidden);
  check_matrix(of + "cross_out", layer.cross_out, c.hidden, c.heads * c.head_dim);
  check_floats(of + "cross_norm", layer.cross_norm, c.hidden, false);
  if (!layer.passing_bias.empty() || !layer.k_norm.empty()) refuse(of + "K of a source has neither bias nor norm");
}

void check_bias(const std::string& name, const std::vector<float>& bias, int64_t heads) {
  const auto size = static_cast<int64_t>(bias.size());
  if (size % heads != 0 || (size > 0 && size / heads % 2 != 1)) {
    refuse(name + " must have an odd number of offsets for each head");
  }
}

void check_encoder(const Config& c, const Encoder& encoder) {
  check_size("max_length", encoder.max_length);
  check_size("num_blocks of sources", encoder.num_blocks);
  check_bias("the encoder's bias", encoder.bias, c.heads);
  check_floats("the encoder's norm", encoder.norm, c.hidden, false);
  for (size_t i = 0; i < encoder.layers.size(); ++i) {
    const std::string of = "encoder layer " + std::to_string(i) + ": ";
    const Layer& layer = encoder.layers[i];
    check_layer(c, layer, of);
    if (layer.cross_q || layer.window != 0) refuse(of + "it attends to its whole source and nothing else");
  }
}

}  // namespace

void check_model(const Config& c, const Matrix& embedding, const std::vector<Layer>& layers, size_t heads,
                 const Encoder* encoder) {
  check_size("hidden", c.hidden);
  check_size("intermediate", c.intermediate);
  check_size("heads", c.heads);
  check_size("kv_heads", c.kv_heads);
  check_size("head_dim", c.head_dim);
  check_size("vocab", c.vocab);
  check_size("max_positions", c.max_positions);
  check_size("block_size", c.block_size);
  check_size("num_blocks", c.num_blocks);
  if (c.heads % c.kv_heads != 0) refuse("heads must be a multiple of kv_heads");
  if (c.heads * c.head_dim > kLargest) refuse("the heads are too wide");
  if (!c.frequencies.empty()) {
    if (c.head_dim % 2 != 0) refuse("head_dim must be even");
    if (static_cast<int64_t>(c.frequencies.size()) != c.head_dim / 2)
      refuse("there must be a frequency for each pair of channels");
  }
  check_bias("bias", c.bias, c.heads);
  if (!(std::isfinite(c.eps) && c.eps >= 0)) refuse("eps must be a number of 0 or more");
  check_matrix("embedding", embedding, c.vocab, c.hidden);
  for (size_t i = 0; i < layers.size(); ++i) {
    check_decoder_layer(c, layers[i], "layer " + std::to_string(i) + ": ", encoder != nullptr);
  }
  if (encoder) check_encoder(c, *encoder);
  const auto& at = c.layers_at;
  if (at.size() < 2 || at.front() != 0 || at.back() != static_cast<int64_t>(layers.size())) {
    refuse("layers_at must go from 0 to the number of layers");
  }
  for (size_t i = 1; i < at.size(); ++i) {
    if (at[i] <= at[i - 1] && (i > 1 || at[i] < 0)) refuse("layers_at must ascend, but for an exit at layer 0");
  }
  if (heads != at.size() - 1) refuse("there must be a head for each boundary but the first");
}

}  // namespace offramp
