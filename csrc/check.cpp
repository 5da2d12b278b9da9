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

void check_layer(const Config& c, const Layer& layer, int64_t index) {
  const std::string of = "layer " + std::to_string(index) + ": ";
  const int64_t q = round_up(c.heads * c.head_dim, kPanel), kv = round_up(c.kv_heads * c.head_dim, kPanel);
  const int64_t gate_up = 2 * round_up(c.intermediate, kPanel);
  check_matrix(of + "qkv", layer.qkv, q + 2 * kv, c.hidden);
  check_matrix(of + "out", layer.out, c.hidden, c.heads * c.head_dim);
  check_matrix(of + "gate_up", layer.gate_up, gate_up, c.hidden);
  check_matrix(of + "down", layer.down, c.hidden, c.intermediate);
  check_matrix(of + "passing", layer.passing, 2 * kv, c.hidden);
  check_floats(of + "attention_norm", layer.attention_norm, c.hidden, false);
  check_floats(of + "mlp_norm", layer.mlp_norm, c.hidden, false);
  check_floats(of + "q_norm", layer.q_norm, c.head_dim, true);
  check_floats(of + "k_norm", layer.k_norm, c.head_dim, true);
  check_floats(of + "qkv_bias", layer.qkv_bias, q + 2 * kv, true);
  check_floats(of + "out_bias", layer.out_bias, round_up(c.hidden, kPanel), true);
  check_floats(of + "gate_up_bias", layer.gate_up_bias, gate_up, true);
  check_floats(of + "down_bias", layer.down_bias, round_up(c.hidden, kPanel), true);
  check_floats(of + "passing_bias", layer.passing_bias, 2 * kv, true);
  if (layer.window < 0) refuse(of + "window is negative");
}

[[noreturn]] void miss(const std::string& message) { throw std::out_of_range(message); }

void check_positions(const Config& c, const Batch& batch, int64_t sequence) {
  int64_t last = -1;
  for (int64_t row = batch.row_begin[sequence]; row < batch.row_begin[sequence + 1]; ++row) {
    const int64_t position = batch.positions[row];
    if (position < 0 || position >= c.max_positions) miss("there is no position " + std::to_string(position));
    if (position <= last) miss("positions do not ascend");
    last = position;
  }
  const int64_t begin = batch.block_begin[sequence], needed = last < 0 ? 0 : last / c.block_size + 1;
  if (batch.block_begin[sequence + 1] - begin < needed) miss("a block table does not reach its positions");
  for (int64_t i = begin; i < begin + needed; ++i) {
    const int32_t block = batch.blocks[i];
    if (block < 0 || block >= c.num_blocks) miss("there is no block " + std::to_string(block));
  }
}

}  // namespace

void check_model(const Config& c, const Matrix& embedding, const std::vector<Layer>& layers, size_t heads) {
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
  if (c.head_dim % 2 != 0) refuse("head_dim must be even");
  if (c.heads * c.head_dim > kLargest) refuse("the heads are too wide");
  if (static_cast<int64_t>(c.frequencies.size()) != c.head_dim / 2)
    refuse("there must be a frequency for each pair of channels");
  if (!(std::isfinite(c.eps) && c.eps >= 0)) refuse("eps must be a number of 0 or more");
  check_matrix("embedding", embedding, c.vocab, c.hidden);
  for (size_t i = 0; i < layers.size(); ++i) check_layer(c, layers[i], static_cast<int64_t>(i));
  const auto& at = c.layers_at;
  if (at.size() < 2 || at.front() != 0 || at.back() != static_cast<int64_t>(layers.size())) {
    refuse("layers_at must go from 0 to the number of layers");
  }
  for (size_t i = 1; i < at.size(); ++i) {
    if (at[i] <= at[i - 1] && (i > 1 || at[i] < 0)) refuse("layers_at must ascend, but for an exit at layer 0");
  }
  if (heads != at.size() - 1) refuse("there must be a head for each boundary but the first");
}

void check_batch(const Config& c, const Batch& batch, bool tokens) {
  if (batch.row_begin.size() != batch.block_begin.size() || batch.row_begin.empty() ||
      batch.row_begin.back() != batch.rows() || batch.block_begin.back() != static_cast<int64_t>(batch.blocks.size())) {
    throw std::invalid_argument("the batch does not fit together");
  }
  for (int64_t s = 0; s < batch.sequences(); ++s) check_positions(c, batch, s);
  if (!tokens) return;
  if (static_cast<int64_t>(batch.tokens.size()) != batch.rows()) miss("there must be as many tokens as positions");
  for (const int32_t token : batch.tokens) {
    if (token < 0 || token >= c.vocab) miss("there is no token " + std::to_string(token));
  }
}

}  // namespace offramp
