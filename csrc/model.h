// A decoder of the Llama line over a paged store, one segment at a time.
//
// Mirrors the executor protocol of src/offramp/types/executor.py: boundary 0 is the embedding, boundary b in 1..S the
// b-th exit, S + 1 the top; segment s reads boundary s and writes boundary s + 1.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "head.h"
#include "pool.h"
#include "store.h"
#include "weights.h"

namespace offramp {

// Columns of the fused projections start on panel boundaries: q at 0, k at round_up(heads * head_dim, 16), v at that
// plus round_up(kv_heads * head_dim, 16). Panels of gate and up alternate: gate 0, up 0, gate 1, up 1, ...
struct Layer {
  std::vector<float> attention_norm, mlp_norm;  // [hidden]
  std::vector<float> q_norm, k_norm;            // [head_dim], or empty
  Matrix qkv, out, gate_up, down;
  std::vector<float> qkv_bias, out_bias, gate_up_bias, down_bias;  // in the order of the padded columns, or empty
  Matrix passing;                   // K and V with attention_norm folded in: columns as in qkv, without q
  std::vector<float> passing_bias;  // or empty
  int64_t window = 0;               // positions a row sees, itself included; 0: all
};

struct Config {
  int64_t hidden = 0, intermediate = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  int64_t max_positions = 0;
  float eps = 0;
  std::vector<double> frequencies;  // [head_dim / 2] radians per position
  double rope_factor = 1;           // multiplies cosine and sine
  std::vector<int64_t> layers_at;   // layers run on arrival at boundaries 0..S+1
  int64_t block_size = 0, num_blocks = 0;
  bool half_kv = true;  // K and V stored as f16, else f32
};

// Token rows of some sequences. Sequence i has rows [row_begin[i], row_begin[i+1]) and blocks [block_begin[i], ...).
struct Batch {
  std::vector<int64_t> positions;  // ascending within a sequence
  std::vector<int32_t> tokens;     // read by segment 0 only
  std::vector<int32_t> blocks;
  std::vector<int64_t> row_begin{0}, block_begin{0};

  int64_t rows() const { return static_cast<int64_t>(positions.size()); }
  int64_t sequences() const { return static_cast<int64_t>(row_begin.size()) - 1; }
};

// Where the time of run_segment goes: seconds of the calling thread, waiting for others included.
struct Timings {
  double norm = 0;       // and turning rows into integers
  double product = 0;    // and the gate
  double attention = 0;  // and rotation, writing K and V
  double other = 0;      // reading and writing hidden states
};

// One call at a time; a second caller waits, and so does a fork.
class Model {
 public:
  // Throws std::invalid_argument where sizes do not fit together.
  Model(Config config, Matrix embedding, std::vector<Layer> layers, std::vector<Head> heads, int threads);
  ~Model();

  // Throw std::out_of_range for a token, position or block that does not exist; nothing has been written then.
  void run_segment(int64_t segment, const Batch& batch);
  void pass_tokens(int64_t boundary, int64_t first_segment, int64_t last_segment, const Batch& batch);  // last excluded
  std::vector<Scored> score(int64_t boundary, const std::vector<ScoreRow>& rows, uint32_t needs, bool choose);

  // Whole blocks, (source, target): see Store::copy_blocks.
  void copy_blocks(const std::vector<std::pair<int32_t, int32_t>>& pairs);

  // Hidden states [hidden] (at S + 2: deep states, where an exit reads the past), and K and V [kv_heads][head_dim], of
  // one token. They throw as above.
  void read_hidden(int64_t boundary, int64_t slot, float* to) const;
  void write_hidden(int64_t boundary, int64_t slot, const float* from);
  void read_kv(int64_t layer, int64_t slot, float* k, float* v) const;

  // What has been measured since timing was switched on; it is off at first.
  void time(bool on);
  Timings timings() const;

  // For programs that test the core. Not while another thread computes.
  Store& store();
  const Config& config() const;
  const std::vector<Head>& heads() const;
  // Threads are woken for a call that is about to come.
  void wake();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace offramp
