#include "segment.h"

#include <algorithm>

#include "pack.h"

namespace offramp {
namespace {

constexpr int64_t kAlone = 2;      // rows that every thread normalises for itself: cheaper than a barrier
constexpr int64_t kRowBlock = 64;  // rows of a product that a thread takes at once: their inputs stay in its cache
constexpr int64_t kGated = 8192;   // floats of gate and up that a thread keeps at once

// Row blocks of nearly equal size.
struct RowBlocks {
  explicit RowBlocks(int64_t rows) : rows(rows), count(ceil_div(rows, kRowBlock)) {}
  int64_t begin(int64_t block) const { return rows * block / count; }

  int64_t rows, count;
};

// The range [begin, end) of `count` blocks times `items` items, cut at the edges of blocks: body(block, begin, end).
template <typename Body>
void for_each_block(int64_t items, int64_t begin, int64_t end, Body&& body) {
  while (begin < end) {
    const int64_t block = begin / items, first = block * items, next = std::min(end, first + items);
    body(block, begin - first, next - first);
    begin = next;
  }
}

}  // namespace

StoreShape store_shape(const Config& c, int64_t layers, int64_t boundaries) {
  StoreShape shape;
  shape.layers = layers;
  shape.boundaries = boundaries;
  shape.kv_heads = c.kv_heads;
  shape.head_dim = c.head_dim;
  shape.hidden = c.hidden;
  shape.block_size = c.block_size;
  shape.num_blocks = c.num_blocks;
  shape.half = c.half_kv;
  return shape;
}

void find_slots(const Batch& batch, int64_t block_size, std::vector<int64_t>* slots) {
  slots->resize(static_cast<size_t>(batch.rows()));
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const int32_t* blocks = batch.blocks.data() + batch.block_begin[s];
    for (int64_t row = batch.row_begin[s]; row < batch.row_begin[s + 1]; ++row) {
      const int64_t position = batch.positions[row];
      (*slots)[row] = blocks[position / block_size] * block_size + position % block_size;
    }
  }
}

void SegmentRunner::run(int64_t segment, const Batch& batch) {
  batch_ = &batch;
  rows_ = batch.rows();
  if (rows_ == 0) return;
  find_slots(batch, m_.config.block_size, &slots_);
  m_.rotary.reach(*std::max_element(batch.positions.begin(), batch.positions.end()) + 1);
  cut_rows();
  reserve();
  if (timed) last_ = std::chrono::steady_clock::now();
  m_.pool.run([this, segment](Worker& worker) { compute(worker, segment); });
}

void SegmentRunner::reserve() {
  const Config& c = m_.config;
  alone_ = rows_ <= kAlone;
  hidden_.reserve(rows_ * round_up(c.hidden, kPanel));
  qkv_.reserve(rows_ * (m_.q_width() + 2 * m_.kv_width()));
  normed_.resize(m_.pool.size());
  attended_.resize(m_.pool.size());
  gated_.resize(m_.pool.size());
  for (int i = 0; i < m_.pool.size(); ++i) {
    const int64_t rows = i == 0 || alone_ ? rows_ : 0;
    normed_[i].reserve(c.hidden, rows);
    attended_[i].reserve(c.heads * c.head_dim, rows);
    gated_[i].reserve(c.intermediate, rows);
  }
  int64_t longest = 0;
  for (const RowChunk& chunk : chunks_) longest = std::max(longest, chunk.count);
  const int64_t unit = m_.unit_panels() * kPanel, gated = std::max(kGated, std::min(rows_, kRowBlock) * unit) + unit;
  scratch_.resize(m_.pool.size());
  const int64_t floats = std::max(attend_scratch(longest, m_.group(), c.head_dim), gated);
  for (Buffer<float>& scratch : scratch_) scratch.reserve(floats);
}

void SegmentRunner::compute(Worker& worker, int64_t segment) {
  const std::vector<int64_t>& layers_at = m_.config.layers_at;
  worker.share(rows_, 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) read_hidden(segment, row);
  });
  lap(worker, &Timings::other);
  for (int64_t layer = layers_at[segment]; layer < layers_at[segment + 1]; ++layer) run_layer(worker, layer);
  const int64_t hidden = m_.config.hidden, stride = round_up(hidden, kPanel);
  worker.share_on(rows_, 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::copy_n(hidden_.get() + row * stride, hidden, m_.store.hidden(segment + 1, slots_[row]));
    }
  });
  lap(worker, &Timings::other);
}

void SegmentRunner::read_hidden(int64_t segment, int64_t row) {
  const int64_t hidden = m_.config.hidden, stride = round_up(hidden, kPanel);
  float* target = hidden_.get() + row * stride;
  if (segment == 0)
    unpack_row(m_.embedding, batch_->tokens[row], target);
  else
    std::copy_n(m_.store.hidden(segment, slots_[row]), hidden, target);
  std::fill(target + hidden, target + stride, 0.0f);
}

void SegmentRunner::run_layer(Worker& worker, int64_t index) {
  const Layer& layer = m_.layers[index];
  Rows input = norm_rows(worker, layer.attention_norm, layer.qkv.type);
  lap(worker, &Timings::norm);
  project(worker, layer.qkv, input, layer.qkv_bias, qkv_.get(), false);
  lap(worker, &Timings::product);
  attend(worker, index);
  input = made_rows(worker, attended_, layer.out.type);
  lap(worker, &Timings::attention);
  project(worker, layer.out, input, layer.out_bias, hidden_.get(), true);
  lap(worker, &Timings::product);
  if (layer.cross_q) run_cross(worker, index);
  input = norm_rows(worker, layer.mlp_norm, layer.gate_up.type);
  lap(worker, &Timings::norm);
  gate(worker, layer, input);
  input = made_rows(worker, gated_, layer.down.type);
  project(worker, layer.down, input, layer.down_bias, hidden_.get(), true);
  lap(worker, &Timings::product);
}

// Calls body(row) for every row: each once, or, alone, every one on every thread.
template <typename Body>
void SegmentRunner::each_row(Worker& worker, Body&& body) {
  const auto some = [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  };
  if (alone_)
    some(0, rows_);
  else
    worker.spread(rows_, some);
}

// The rows after a norm, as a product with weights of `type` reads them.
Rows SegmentRunner::norm_rows(Worker& worker, const std::vector<float>& norm, WeightType type) {
  const Operand& normed = normed_[alone_ ? worker.index() : 0];
  const int64_t stride = round_up(m_.config.hidden, kPanel);
  each_row(worker, [&](int64_t row) {
    kernels().rms_norm(hidden_.get() + row * stride, norm.data(), m_.config.eps, m_.config.hidden, normed.row(row));
    if (is_integer(type)) normed.quantize(row);
  });
  return normed.rows(rows_);
}

// The rows that the team has made in `operands[0]`, as a product with weights of `type` reads them.
Rows SegmentRunner::made_rows(Worker& worker, const std::vector<Operand>& operands, WeightType type) {
  if (!is_integer(type)) return operands[0].rows(rows_);
  const Operand& integers = operands[alone_ ? worker.index() : 0];
  each_row(worker, [&](int64_t row) { integers.quantize(row, operands[0].row(row)); });
  return integers.rows(rows_);
}

void SegmentRunner::project(Worker& worker, const Matrix& matrix, const Rows& input, const std::vector<float>& bias,
                            float* out, bool add) {
  const RowBlocks blocks(rows_);
  const int64_t stride = round_up(matrix.n, kPanel);
  worker.spread(blocks.count * matrix.panels(), [&](int64_t first, int64_t last) {
    for_each_block(matrix.panels(), first, last, [&](int64_t block, int64_t begin, int64_t end) {
      const int64_t row = blocks.begin(block), count = blocks.begin(block + 1) - row;
      float* target = out + row * stride + begin * kPanel;
      kernels().matmul(matrix, part(input, matrix.k, row, count), begin, end, target, stride, add);
      if (bias.empty()) return;
      for (int64_t r = 0; r < count; ++r) {
        kernels().add(target + r * stride, bias.data() + begin * kPanel, (end - begin) * kPanel);
      }
    });
  });
}

// activation(gate x) * up x.
void SegmentRunner::gate(Worker& worker, const Layer& layer, const Rows& input) {
  const RowBlocks blocks(rows_);
  const int64_t panels = m_.unit_panels(), units = layer.gate_up.panels() / panels;
  float* scratch = scratch_[worker.index()].get();
  worker.spread(blocks.count * units, [&](int64_t first, int64_t last) {
    for_each_block(units, first, last, [&](int64_t block, int64_t begin, int64_t end) {
      const int64_t row = blocks.begin(block), count = blocks.begin(block + 1) - row;
      const int64_t most = std::max<int64_t>(1, kGated / (panels * kPanel * count));
      for (; begin < end; begin += most) {
        const Rows rows = part(input, layer.gate_up.k, row, count);
        gate_units(layer, rows, row, begin, std::min(end, begin + most), scratch);
      }
    });
  });
}

// Units [begin, end) of some rows, the first of which is row `first` of the batch.
void SegmentRunner::gate_units(const Layer& layer, const Rows& input, int64_t first, int64_t begin, int64_t end,
                               float* scratch) {
  const int64_t panels = m_.unit_panels(), stride = (end - begin) * panels * kPanel, column = begin * kPanel;
  const int64_t columns = std::min((end - begin) * kPanel, m_.config.intermediate - column);
  kernels().matmul(layer.gate_up, input, panels * begin, panels * end, scratch, stride, false);
  for (int64_t r = 0; r < input.count; ++r) {
    float* projected = scratch + r * stride;
    if (!layer.gate_up_bias.empty()) {
      kernels().add(projected, layer.gate_up_bias.data() + begin * panels * kPanel, stride);
    }
    activate(projected, columns, gated_[0].row(first + r) + column);
  }
}

// Of one row: panels of gate and up, or of up alone.
void SegmentRunner::activate(const float* from, int64_t columns, float* to) const {
  if (!m_.config.gated()) {
    kernels().relu(from, columns, to);
    return;
  }
  const auto gate = m_.config.activation == Activation::silu ? kernels().silu_mul : kernels().gelu_mul;
  for (int64_t i = 0; i < columns; i += kPanel) {
    gate(from + 2 * i, from + 2 * i + kPanel, std::min(kPanel, columns - i), to + i);
  }
}

void SegmentRunner::lap(const Worker& worker, double Timings::* phase) {
  if (!timed || worker.index() != 0) return;
  const auto now = std::chrono::steady_clock::now();
  timings.*phase += std::chrono::duration<double>(now - last_).count();
  last_ = now;
}

}  // namespace offramp
