// Heads: from the hidden state at a boundary to features and the next token.
//
// The formulas of a head are those of exit packs (src/offramp/exits/pack.py): adapter, norm, matrix, "other" output,
// temperature, classifier. The top is a head too: the final norm and the LM head.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "weights.h"

namespace offramp {

struct Head {
  enum class Adapter : uint8_t { none, linear, mlp };
  enum class Classifier : uint8_t { none, linear, mlp };

  Matrix matrix;             // [columns (+ 1 for "other", the last), hidden]
  std::vector<int32_t> ids;  // token of each column, ascending; empty: column = token
  bool has_norm = true;
  std::vector<float> norm;  // [hidden] if has_norm
  bool other = false;
  float other_bias = 0;
  float temperature = 1;  // logits are divided by it

  // With `past`, an exit reads p + W [norm(h); norm(p)] in place of h, where p is the deep state of the token before.
  bool past = false;
  Matrix past_weight;  // [hidden, 2 hidden]
  std::vector<float> past_hidden_norm, past_state_norm;

  Adapter adapter = Adapter::none;
  Matrix adapter_weight;  // linear: h + W h + b
  std::vector<float> adapter_bias;
  std::vector<float> adapter_norm;  // mlp: h + down(silu(gate x) * up x), x = norm(h); gate and up panels alternate
  Matrix adapter_gate_up, adapter_down;

  Classifier classifier = Classifier::none;  // on x = norm(h), without the adapter
  std::vector<float> classifier_weight;      // linear: sigmoid(w x + b)
  float classifier_bias = 0;
  Matrix classifier_down;  // mlp: sigmoid(up silu(down x))
  std::vector<float> classifier_down_bias, classifier_up;
  float classifier_up_bias = 0;

  std::vector<int32_t> columns;  // of each token, -1: none; empty if `ids` is. Filled in by prepare_head

  // How many tokens have a column, and how many the model has.
  int64_t tokens() const { return matrix.n - (other ? 1 : 0); }
  int64_t vocab() const { return ids.empty() ? tokens() : static_cast<int64_t>(columns.size()); }

  int32_t token(int64_t column) const { return ids.empty() ? static_cast<int32_t>(column) : ids[column]; }
  bool knows(int64_t token) const { return token >= 0 && token < vocab(); }
  // The column of a known token, -1: none.
  int64_t column(int64_t token) const { return ids.empty() ? token : columns[token]; }
};

// Checks that the sizes of a head fit together and fills in `columns`. Throws std::invalid_argument.
void prepare_head(Head& head, int64_t hidden, int64_t vocab);

enum Need : uint32_t { max_prob = 1, margin = 2, entropy = 4, saturation = 8, classifier = 16 };
constexpr uint32_t kTokenNeeds = max_prob | margin | entropy;  // read off logits; the others off hidden states

// How a token is chosen; the fields of SamplingParams.
struct Sampling {
  double temperature = 0;  // 0: greedy
  double top_p = 1, min_p = 0;
  int64_t top_k = 0;
  double repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::pair<int32_t, float>> bias;
  int32_t logprobs = -1;  // -1: none

  bool samples() const { return temperature != 0; }
  bool reads_history() const { return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0; }
};

// A hidden state that chooses the token of the position after its own. Ids that are not the model's count for nothing.
struct ScoreRow : Sampling {
  int64_t slot = 0;
  int64_t position = 0;  // of the hidden state
  int64_t before = -1;   // slot of the position before, where the head reads the past; -1: there is none
  uint64_t seed = 0;
  std::vector<int32_t> banned, prompt, output;
  std::vector<uint8_t> mask;  // token t may be chosen if bit t % 8 of byte t / 8 is set; empty: there is no mask

  bool adjusts() const { return !bias.empty() || !banned.empty() || !mask.empty() || reads_history(); }
  bool masks(int64_t token) const { return !mask.empty() && (mask[token / 8] >> token % 8 & 1) == 0; }
};

struct Scored {
  int64_t token = -1;                               // -1: nothing may be chosen
  float features[5] = {0, 0, 0, 0, 0};              // in the order of Need
  std::vector<std::pair<int32_t, float>> logprobs;  // the chosen token's first; empty: none
};

}  // namespace offramp
