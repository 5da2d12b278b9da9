// Attention of a segment: to the sequences themselves, and to their sources.
#include <algorithm>
#include <cmath>

#include "segment.h"

namespace offramp {
namespace {

const std::vector<float> kNoBias;

}  // namespace

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
    kernels().rotate(x, cos, sin, m_.rotary.half());
  };
  for (int64_t g = 0; g < group; ++g) turn(projected + (head * group + g) * width, layer.q_norm);
  turn(key, layer.k_norm);
  m_.store.write_head(m_.kv_layer(index), slots_[row], head, key, key + m_.kv_width());
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
  const int64_t group = m_.group(), *begin = batch_->row_begin.data() + chunk.sequence;
  if (one_chunk_) {
    for (int64_t row = chunk.first; row < chunk.first + chunk.count; ++row) rotate_row(index, row, head);
  }
  const int64_t stride = m_.q_width() + 2 * m_.kv_width();
  Attend task = task_of(worker, m_.store, m_.kv_layer(index), chunk, head, stride);
  task.positions = batch_->positions.data() + chunk.first;
  task.window = m_.layers[index].window;
  task.length = m_.whole ? begin[1] - begin[0] : 0;
  task.bias = m_.bias.head(head * group);
  task.reach = m_.bias.reach();
  task.blocks = batch_->blocks.data() + batch_->block_begin[chunk.sequence];
  kernels().attend(task);
}

// Queries of a source of their own in place of those of the layer; the rest is as in `run_layer`.
void SegmentRunner::run_cross(Worker& worker, int64_t index) {
  const Layer& layer = m_.layers[index];
  const int64_t heads = m_.config.kv_heads;
  Rows input = norm_rows(worker, layer.cross_norm, layer.cross_q.type);
  lap(worker, &Timings::norm);
  project(worker, layer.cross_q, input, kNoBias, qkv_.get(), false);
  lap(worker, &Timings::product);
  worker.share(static_cast<int64_t>(chunks_.size()) * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) attend_source(worker, index, chunks_[i / heads], i % heads);
  });
  input = made_rows(worker, attended_, layer.cross_out.type);
  lap(worker, &Timings::attention);
  project(worker, layer.cross_out, input, kNoBias, hidden_.get(), true);
  lap(worker, &Timings::product);
}

void SegmentRunner::attend_source(Worker& worker, int64_t index, const RowChunk& chunk, int64_t head) {
  const SourcePlace& source = batch_->sources[chunk.sequence];
  Attend task = task_of(worker, *m_.sources, index, chunk, head, m_.q_width());
  task.length = source.length;
  task.blocks = batch_->source_blocks.data() + source.begin;
  kernels().attend(task);
}

// Of the query heads that share a key/value head, against a layer of a store. Rows of queries are `stride` floats
// apart.
Attend SegmentRunner::task_of(const Worker& worker, const Store& store, int64_t layer, const RowChunk& chunk,
                              int64_t head, int64_t stride) const {
  const Config& c = m_.config;
  const int64_t group = m_.group(), width = group * c.head_dim;
  Attend task;
  task.half = store.shape().half;
  task.head_dim = c.head_dim;
  task.block_size = store.shape().block_size;
  task.rows = chunk.count;
  task.group = group;
  task.q = qkv_.get() + chunk.first * stride + head * width;
  task.q_stride = stride;
  task.scale = c.scaled ? 1.0f / std::sqrt(static_cast<float>(c.head_dim)) : 1.0f;
  task.k = store.keys(layer) + head * store.head_bytes();
  task.v = store.values(layer) + head * store.head_bytes();
  task.block_stride = store.block_bytes();
  task.out = attended_[0].row(chunk.first) + head * width;
  task.out_stride = attended_[0].stride();
  task.scratch = scratch_[worker.index()].get();
  return task;
}

}  // namespace offramp
