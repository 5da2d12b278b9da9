// The pass: K and V of many layers from one hidden state, as one shared list of panels.
#include <algorithm>
#include <numeric>

#include "segment.h"

namespace offramp {
namespace {

constexpr int64_t kRowBlock = 64;  // rows of a product that a thread takes at once

}  // namespace

void Passer::run(int64_t boundary, int64_t first, int64_t last, const Batch& batch) {
  find_slots(batch, m_.config.block_size, &slots_);
  states_.clear();
  for (const int64_t slot : slots_) states_.push_back(m_.store.hidden(boundary, slot));
  write(states_, nullptr, first, last, batch);
}

void Passer::run(const std::vector<const float*>& states, const float* norm, int64_t first, int64_t last,
                 const Batch& batch) {
  find_slots(batch, m_.config.block_size, &slots_);
  write(states, norm, first, last, batch);
}

void Passer::write(const std::vector<const float*>& states, const float* norm, int64_t first, int64_t last,
                   const Batch& batch) {
  const Config& c = m_.config;
  const int64_t rows = batch.rows(), layers = last - first;
  if (rows == 0 || layers <= 0) return;
  batch_ = &batch;
  m_.rotary.reach(*std::max_element(batch.positions.begin(), batch.positions.end()) + 1);

  // So many heads begin and end on a panel.
  const int64_t heads = std::min(c.kv_heads, kPanel / std::gcd(c.head_dim, kPanel));
  const int64_t parts = ceil_div(c.kv_heads, heads), blocks = ceil_div(rows, kRowBlock);
  normed_.reserve(c.hidden, rows);
  scratch_.resize(m_.pool.size());
  for (Buffer<float>& scratch : scratch_) {
    scratch.reserve(2 * std::min(rows, kRowBlock) * round_up(heads * c.head_dim, kPanel));
  }
  bool integers = false;
  for (int64_t layer = first; layer < last; ++layer) integers = integers || is_integer((m_.layers[layer].*kv_).type);

  m_.pool.run([&](Worker& worker) {
    worker.spread(rows, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        kernels().rms_norm(states[row], norm, c.eps, c.hidden, normed_.row(row));
        if (integers) normed_.quantize(row);
      }
    });
    float* scratch = scratch_[worker.index()].get();
    worker.spread(blocks * layers * parts, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t block = i / (layers * parts), layer = first + i / parts % layers, head = i % parts * heads;
        const int64_t row = rows * block / blocks, count = rows * (block + 1) / blocks - row;
        pass_heads(layer, row, count, head, std::min(heads, c.kv_heads - head), scratch);
      }
    });
  });
}

// K and V of some heads of a layer.
void Passer::pass_heads(int64_t index, int64_t row, int64_t rows, int64_t head, int64_t heads, float* scratch) {
  const Config& c = m_.config;
  const Layer& layer = m_.layers[index];
  const int64_t width = c.head_dim, column = head * width, stride = round_up(heads * width, kPanel);
  float* projected[2] = {scratch, scratch + rows * stride};
  for (int part = 0; part < 2; ++part) {
    const int64_t from = part * m_.kv_width() + column, panel = from / kPanel;
    kernels().matmul(layer.*kv_, normed_.rows(row, rows), panel, panel + stride / kPanel, projected[part], stride,
                     false);
    if (layer.passing_bias.empty()) continue;
    for (int64_t r = 0; r < rows; ++r)
      kernels().add(projected[part] + r * stride, layer.passing_bias.data() + from, stride);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t position = batch_->positions[row + r];
    for (int64_t h = 0; h < heads; ++h) {
      float *key = projected[0] + r * stride + h * width, *value = projected[1] + r * stride + h * width;
      if (!layer.k_norm.empty()) kernels().rms_norm(key, layer.k_norm.data(), c.eps, width, key);
      kernels().rotate(key, m_.rotary.cos(position), m_.rotary.sin(position), m_.rotary.half());
      m_.store.write_head(index, slots_[row + r], head + h, key, value);
    }
  }
}

}  // namespace offramp
