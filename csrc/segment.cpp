#include "segment.h"

#include <algorithm>
#include <cmath>

#include "pack.h"

namespace offramp {
namespace {

constexpr int64_t kAlone = 2;          // rows that every thread normalises for itself: cheaper than a barrier
constexpr int64_t kRowBlock = 64;      // rows of a product that a thread takes at once: their inputs stay in its cache
constexpr int64_t kGated = 8192;       // floats of gate and up that a thread keeps at once
constexpr int64_t kUnit = 2 * kPanel;  // columns: a panel of gates, and the panel of ups that lies behind it

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

// Chunks are long enough that K and V are rarely converted anew, and short enough that all threads have some.
void SegmentRunner::cut_rows() {
  const int64_t group = m_.group(), tasks = 4 * m_.pool.size();
  const int64_t most = ceil_div(48, group), least = ceil_div(16, group);
  const int64_t length = std::max(least, std::min(most, ceil_div(rows_ * m_.config.kv_heads, tasks)));
  chunks_.clear();
  for (int64_t s = 0; s < batch_->sequences(); ++s) {
    const int64_t begin = batch_->row_begin[s], count = batch_->row_begin[s + 1] - begin,
                  pieces = ceil_div(count, length);
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t from = count * i / pieces, to = count * (i + 1) / pieces;
      chunks_.push_back({s, begin + from, to - from});
    }
  }
  const auto cost = [this](const RowChunk& c) { return c.count * (batch_->positions[c.first + c.count - 1] + 1); };
  std::sort(chunks_.begin(), chunks_.end(),
            [&cost](const RowChunk& a, const RowChunk& b) { return cost(a) > cost(b); });
  one_chunk_ = chunks_.size() == 1;
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
  const int64_t gated = std::max(kGated, std::min(rows_, kRowBlock) * kUnit) + kUnit;
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

// Norms and rotation of the queries and the key of one key/value head; its K and V into the store.
void SegmentRunner::rotate_row(int64_t index, int64_t row, int64_t head) {
  const Config& c = m_.config;
  const Layer& layer = m_.layers[index];
  const int64_t group = m_.group(), width = c.head_dim, position = batch_->positions[row];
  const float *cos = m_.rotary.cos(position), *sin = m_.rotary.sin(position);
  float* projected = qkv_.get() + row * (m_.q_width() + 2 * m_.kv_width());
  float* key = projected + m_.q_width() + head * width;
  const auto turn = [&](float* x, const std::vector<float>& norm) {
    if (!norm.empty()) kernels().rms_norm(x, norm.data(), c.eps, width, x);
    kernels().rotate(x, cos, sin, width / 2);
  };
  for (int64_t g = 0; g < group; ++g) turn(projected + (head * group + g) * width, layer.q_norm);
  turn(key, layer.k_norm);
  m_.store.write_head(index, slots_[row], head, key, key + m_.kv_width());
}

void SegmentRunner::attend(Worker& worker, int64_t index) {
  const int64_t heads = m_.config.kv_heads;
  if (!one_chunk_) {
    worker.spread(rows_ * heads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) rotate_row(index, i / heads, i % heads);
    });
  }
  worker.share(static_cast<int64_t>(chunks_.size()) * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) attend_chunk(worker, index, chunks_[i / heads], i % heads);
  });
}

void SegmentRunner::attend_chunk(Worker& worker, int64_t index, const RowChunk& chunk, int64_t head) {
  const Config& c = m_.config;
  const int64_t group = m_.group(), width = group * c.head_dim, stride = m_.q_width() + 2 * m_.kv_width();
  const int64_t end = chunk.first + chunk.count;
  if (one_chunk_) {
    for (int64_t row = chunk.first; row < end; ++row) rotate_row(index, row, head);
  }
  Attend task;
  task.half = c.half_kv;
  task.head_dim = c.head_dim;
  task.block_size = c.block_size;
  task.rows = chunk.count;
  task.group = group;
  task.positions = batch_->positions.data() + chunk.first;
  task.window = m_.layers[index].window;
  task.q = qkv_.get() + chunk.first * stride + head * width;
  task.q_stride = stride;
  task.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  task.blocks = batch_->blocks.data() + batch_->block_begin[chunk.sequence];
  task.k = m_.store.keys(index) + head * m_.store.head_bytes();
  task.v = m_.store.values(index) + head * m_.store.head_bytes();
  task.block_stride = m_.store.block_bytes();
  task.out = attended_[0].row(chunk.first) + head * width;
  task.out_stride = attended_[0].stride();
  task.scratch = scratch_[worker.index()].get();
  kernels().attend(task);
}

// silu(gate x) * up x.
void SegmentRunner::gate(Worker& worker, const Layer& layer, const Rows& input) {
  const RowBlocks blocks(rows_);
  const int64_t units = layer.gate_up.panels() / 2;
  float* scratch = scratch_[worker.index()].get();
  worker.spread(blocks.count * units, [&](int64_t first, int64_t last) {
    for_each_block(units, first, last, [&](int64_t block, int64_t begin, int64_t end) {
      const int64_t row = blocks.begin(block), count = blocks.begin(block + 1) - row;
      const int64_t most = std::max<int64_t>(1, kGated / (kUnit * count));
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
  const int64_t stride = (end - begin) * kUnit, column = begin * kPanel;
  const int64_t columns = std::min(stride / 2, m_.config.intermediate - column);
  kernels().matmul(layer.gate_up, input, 2 * begin, 2 * end, scratch, stride, false);
  for (int64_t r = 0; r < input.count; ++r) {
    float* pairs = scratch + r * stride;
    if (!layer.gate_up_bias.empty()) kernels().add(pairs, layer.gate_up_bias.data() + begin * kUnit, stride);
    float* gated = gated_[0].row(first + r) + column;
    for (int64_t i = 0; i < columns; i += kPanel) {
      kernels().silu_mul(pairs + 2 * i, pairs + 2 * i + kPanel, std::min(kPanel, columns - i), gated + i);
    }
  }
}

void SegmentRunner::lap(const Worker& worker, double Timings::* phase) {
  if (!timed || worker.index() != 0) return;
  const auto now = std::chrono::steady_clock::now();
  timings.*phase += std::chrono::duration<double>(now - last_).count();
  last_ = now;
}

}  // namespace offramp
