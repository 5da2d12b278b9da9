// A decoder over a paged store, one segment at a time: of the Llama line, or of the T5 line with its encoder.
//
// Mirrors the executor protocol of src/offramp/types/executor.py: boundary 0 is the embedding, boundary b in 1..S the
// b-th exit, S + 1 the top; segment s reads boundary s and writes boundary s + 1.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "head.h"
#include "pool.h"
#include "store.h"
#include "weights.h"

namespace offramp {

// Columns of the fused projections start on panel boundaries: q at 0, k at round_up(heads * head_dim, 16), v at that
// plus round_up(kv_heads * head_dim, 16). Panels of gate and up alternate: gate 0, up 0, gate 1, up 1, ...; without a
// gate they are those of up alone.
struct Layer {
  std::vector<float> attention_norm, mlp_norm;  // [hidden]
  std::vector<float> q_norm, k_norm;            // [head_dim], or empty
  Matrix qkv, out, gate_up, down;
  std::vector<float> qkv_bias, out_bias, gate_up_bias, down_bias;  // in the order of the padded columns, or empty
  Matrix passing;                   // K and V with attention_norm folded in: columns as in qkv, without q
  std::vector<float> passing_bias;  // or empty
  int64_t window = 0;               // positions a row sees, itself included; 0: all

  // Attention to a source, between self-attention and the MLP. All missing, or none; K and V have no bias and no norm.
  std::vector<float> cross_norm;        // [hidden]
  Matrix cross_q, cross_kv, cross_out;  // `cross_kv`: of the encoder's states, columns as in `passing`
};

// relu: of `up` alone. The others multiply `up` by the activation of a gate.
enum class Activation : uint8_t { silu, gelu, relu };

struct Config {
  int64_t hidden = 0, intermediate = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  int64_t max_positions = 0;
  float eps = 0;
  std::vector<double> frequencies;  // [head_dim / 2] radians per position; empty: positions are not rotated
  double rope_factor = 1;           // multiplies cosine and sine
  std::vector<float> bias;          // [heads][2 reach + 1]: see RelativeBias; empty: there is none
  bool scaled = true;               // scores are divided by sqrt(head_dim)
  Activation activation = Activation::silu;
  std::vector<int64_t> layers_at;  // layers run on arrival at boundaries 0..S+1
  int64_t block_size = 0, num_blocks = 0;
  bool half_kv = true;  // K and V stored as f16, else f32

  bool gated() const { return activation != Activation::relu; }
};

// The other half of an encoder-decoder model. Its sizes are the decoder's; its layers have neither `passing` nor
// cross-attention, and every position sees all of its source.
struct Encoder {
  std::vector<Layer> layers;
  std::vector<float> bias;                 // see Config
  std::vector<float> norm;                 // [hidden], of what the decoder's layers read
  int64_t max_length = 0, num_blocks = 0;  // of a source, and of the store of sources, in tokens and blocks
};

// Where a sequence's source lies in the store of sources: blocks [begin, end) of `Batch::source_blocks`.
struct SourcePlace {
  int64_t length = 0, begin = 0, end = 0;
};

// Token rows of some sequences. Sequence i has rows [row_begin[i], row_begin[i+1]) and blocks [block_begin[i], ...).
struct Batch {
  std::vector<int64_t> positions;  // ascending within a sequence
  std::vector<int32_t> tokens;     // read by segment 0 only
  std::vector<int32_t> blocks;
  std::vector<int64_t> row_begin{0}, block_begin{0};
  std::vector<SourcePlace> sources;  // of each sequence, where layers attend to sources and are run; else not read
  std::vector<int32_t> source_blocks;

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
  Model(Config config, Matrix embedding, std::vector<Layer> layers, std::vector<Head> heads, int threads,
        std::optional<Encoder> encoder = std::nullopt);
  ~Model();

  // Throw std::out_of_range for a token, position or block that does not exist; nothing has been written then.
  void encode(const Batch& batch);  // whole sources, with blocks in the store of sources
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

  // K and V [kv_heads][head_dim] that a layer's cross-attention reads of one token of a source.
  void read_source(int64_t layer, int64_t slot, float* k, float* v) const;

  // What has been measured since timing was switched on; it is off at first.
  void time(bool on);
  Timings timings() const;

  // For programs that test the core. Not while another thread computes.
  Store& store();
  Store& sources();  // only with an encoder
  const Config& config() const;
  const Config& source_config() const;  // what batches of sources are checked against; all 0 without an encoder
  const std::vector<Head>& heads() const;
  // Threads are woken for a call that is about to come.
  void wake();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace offramp
