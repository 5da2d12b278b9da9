// Runs the layers of a segment over the rows of a batch, and passes rows by them.
//
// Every layer is a few loops shared by the team, with a barrier after each:
//   norm      normalised rows, as integers where weights are integers
//   qkv       product
//   rotate    norms and rotation of q and k; K and V into the store. Part of `attend` if there is but one sequence
//   attend    attention of some rows and a key/value head; then, where weights are integers, its rows as integers
//   out       product, added to the hidden states
//   norm, cross_q, attend, cross_out: the same over a source, where the layer attends to one
//   norm, gate_up (product, gate; rows as integers), down (product, added)
// No result depends on how the work is cut.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "model.h"
#include "operand.h"
#include "pool.h"
#include "relative.h"
#include "rotary.h"
#include "store.h"

namespace offramp {

// The parts of a model that compute, and where results go.
struct Machine {
  const Config& config;
  const Matrix& embedding;
  const std::vector<Layer>& layers;
  Pool& pool;
  Store& store;
  Rotary& rotary;
  const RelativeBias& bias;
  const Store* sources = nullptr;  // where layers attend to sources
  // Rows see their whole sequence, of which the batch has all rows. No K and V are kept: layers share the store's one.
  bool whole = false;

  int64_t kv_layer(int64_t layer) const { return whole ? 0 : layer; }

  // Columns of the fused projection.
  int64_t q_width() const { return round_up(config.heads * config.head_dim, kPanel); }
  int64_t kv_width() const { return round_up(config.kv_heads * config.head_dim, kPanel); }
  int64_t group() const { return config.heads / config.kv_heads; }
  // Panels of `gate_up` for a panel of what goes down.
  int64_t unit_panels() const { return config.gated() ? 2 : 1; }
};

// Rows [first, first + count) of a batch, all of one sequence, to be attended together.
struct RowChunk {
  int64_t sequence = 0, first = 0, count = 0;
};

class SegmentRunner {
 public:
  explicit SegmentRunner(const Machine& machine) : m_(machine) {}

  // Of a batch that has been checked.
  void run(int64_t segment, const Batch& batch);

  bool timed = false;
  Timings timings;

 private:
  void reserve();
  void cut_rows();
  void compute(Worker& worker, int64_t segment);
  void read_hidden(int64_t segment, int64_t row);
  void run_layer(Worker& worker, int64_t layer);
  template <typename Body>
  void each_row(Worker& worker, Body&& body);
  Rows norm_rows(Worker& worker, const std::vector<float>& norm, WeightType type);
  Rows made_rows(Worker& worker, const std::vector<Operand>& operands, WeightType type);
  void project(Worker& worker, const Matrix& matrix, const Rows& input, const std::vector<float>& bias, float* out,
               bool add);
  void rotate_row(int64_t layer, int64_t row, int64_t head);
  void attend(Worker& worker, int64_t layer);
  void attend_chunk(Worker& worker, int64_t layer, const RowChunk& chunk, int64_t head);
  void run_cross(Worker& worker, int64_t layer);
  void attend_source(Worker& worker, int64_t layer, const RowChunk& chunk, int64_t head);
  Attend task_of(const Worker& worker, const Store& store, int64_t layer, const RowChunk& chunk, int64_t head,
                 int64_t stride) const;
  void gate(Worker& worker, const Layer& layer, const Rows& input);
  void gate_units(const Layer& layer, const Rows& input, int64_t first, int64_t begin, int64_t end, float* scratch);
  void activate(const float* from, int64_t columns, float* to) const;
  void lap(const Worker& worker, double Timings::* phase);

  const Machine m_;
  const Batch* batch_ = nullptr;
  int64_t rows_ = 0;
  bool alone_ = false;      // so few rows that every thread makes its own input of a product
  bool one_chunk_ = false;  // rows are rotated where they are attended

  std::vector<int64_t> slots_;    // of each row
  std::vector<RowChunk> chunks_;  // the longest first
  Buffer<float> hidden_, qkv_;
  std::vector<Operand> normed_, attended_, gated_;  // of all threads; of [0] the integers are shared unless alone
  std::vector<Buffer<float>> scratch_;              // of each thread
  std::chrono::steady_clock::time_point last_;
};

// K and V of many layers from the same rows.
//
// With the `passing` matrices it is hidden-state propagation (CALM, Schuster et al. 2022): K and V of hidden states
// that skip layers. The norms of the layers are folded into these matrices, so all layers read the same rows. With the
// `cross_kv` matrices it writes what the layers read of sources.
class Passer {
 public:
  Passer(const Machine& machine, Matrix Layer::* kv) : m_(machine), kv_(kv) {}

  // Layers [first, last), from hidden states at `boundary`.
  void run(int64_t boundary, int64_t first, int64_t last, const Batch& batch);

  // Layers [first, last), from the hidden states that `states` points to, one for each row; `norm` null: 1.
  void run(const std::vector<const float*>& states, const float* norm, int64_t first, int64_t last, const Batch& batch);

 private:
  void write(const std::vector<const float*>& states, const float* norm, int64_t first, int64_t last,
             const Batch& batch);
  void pass_heads(int64_t layer, int64_t row, int64_t rows, int64_t head, int64_t heads, float* scratch);

  const Machine m_;
  Matrix Layer::* const kv_;
  const Batch* batch_ = nullptr;
  std::vector<int64_t> slots_;
  std::vector<const float*> states_;
  Operand normed_;
  std::vector<Buffer<float>> scratch_;
};

// A store of a model's K and V in so many layers, and hidden states at so many boundaries.
StoreShape store_shape(const Config& config, int64_t layers, int64_t boundaries);

// The slot of each row.
void find_slots(const Batch& batch, int64_t block_size, std::vector<int64_t>* slots);

}  // namespace offramp
