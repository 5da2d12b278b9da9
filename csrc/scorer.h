// Scoring: from the hidden states at a boundary to features, tokens and log-probabilities.
//
// Logits are worked through in stretches of columns that a thread projects and sweeps while they are in its cache. Each
// stretch has its own softmax statistics, combined in ascending order, so that results depend on neither the number of
// threads nor the rows scored together. A row whose logits are not finite fails alone.
#pragma once

#include <cstdint>
#include <vector>

#include "head.h"
#include "pool.h"
#include "score_block.h"
#include "store.h"

namespace offramp {

class Scorer {
 public:
  // Head b - 1 is that of boundary b. Throws std::invalid_argument where a head does not fit.
  Scorer(Pool* pool, Store* store, std::vector<Head> heads, int64_t vocab, float eps);

  // See Model::score. One caller at a time. Throws std::out_of_range for a boundary or slot that does not exist and
  // std::invalid_argument for a mask that is shorter than the vocabulary, or a classifier that is not there.
  std::vector<Scored> score(int64_t boundary, const std::vector<ScoreRow>& rows, uint32_t needs, bool choose);

  const std::vector<Head>& heads() const { return heads_; }

 private:
  Pool* pool_;
  Store* store_;
  std::vector<Head> heads_;
  float eps_;
  ScoreBlock block_;
  std::vector<const float*> states_, previous_, past_;
  std::vector<float*> deep_;
};

}  // namespace offramp
