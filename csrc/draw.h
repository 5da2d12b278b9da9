// The draw of a token from adjusted logits: temperature, top_k, top_p, min_p, then Gumbel-max: the largest of
// logit / temperature + noise is an exact draw from the truncated distribution (Maddison, Tarlow and Minka 2014).
#pragma once

#include <cstdint>
#include <vector>

#include "descent.h"
#include "head.h"

namespace offramp {

// A drawn column and its logit / temperature + noise.
struct Draw {
  double value = 0;
  int64_t column = -1;  // -1: none
};

// The better of two draws; the lower column of equals.
Draw better(const Draw& a, const Draw& b);

// Whether a row's top_k, top_p or min_p can drop any of `columns`.
bool truncates(const ScoreRow& row, int64_t columns);

// Whether truncation needs `total` in draw_truncated.
bool needs_total(const ScoreRow& row, int64_t columns);

// The best of the columns [begin, end), without truncation.
Draw draw_plain(const ScoreRow& row, const Head& head, const Logits& logits, int64_t begin, int64_t end);

// The best of the columns that top_k, top_p and min_p keep. They apply one after the other, each to the distribution
// that the one before left; the most likely column always stays, and among equals lower ones do. `total` is the sum of
// exp((logit - best) / temperature) over all columns, if needed. `heap` and `kept` are scratch.
Draw draw_truncated(const ScoreRow& row, const Head& head, const Logits& logits, double total, std::vector<Place>* heap,
                    std::vector<Place>* kept);

}  // namespace offramp
