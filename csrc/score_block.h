// Scores a block of rows: input of the head, logits stretch by stretch, adjustment, statistics, choice.
#pragma once

#include <cstdint>
#include <vector>

#include "draw.h"
#include "head.h"
#include "head_input.h"
#include "penalties.h"
#include "pool.h"
#include "statistics.h"

namespace offramp {

class ScoreBlock {
 public:
  // Makes ready for rows [0, task.count) of `rows`, by a team of `threads`. Memory is kept from call to call.
  void prepare(const HeadTask& task, const ScoreRow* rows, uint32_t needs, bool choose, int threads);

  // Called by every thread of the team; task.scored is filled in then.
  void run(Worker& worker);

 private:
  // One row, and what has been found out about it.
  struct Row {
    const ScoreRow* how = nullptr;
    Scored* scored = nullptr;
    Wanted wanted;
    float* logits = nullptr;           // [columns] if they are kept; null: swept and forgotten
    StretchSums* stretches = nullptr;  // [stretches]
    Draw* draws = nullptr;             // [pieces] of a plain draw
    bool adjusted = false;
    bool truncated = false;  // drawn from what top_k, top_p and min_p keep; else from all columns
    bool allowed = true;     // by the bias
    RowSums sums;
    bool speaks = false;  // a token may be chosen
  };

  // What a thread needs for itself.
  struct Mine {
    Buffer<float> tile;  // a stretch of logits of every row
    Buffer<float> line;  // of one
    Counts counts;
    std::vector<Place> heap, kept;
  };

  void reserve(int threads);
  void project(int64_t stretch, Mine& mine);
  void sweep(Row& row, int64_t stretch, const float* logits, Mine& mine);
  void judge(Row& row, Mine& mine);
  void conclude(Row& row, Mine& mine);
  void list_logprobs(Row& row, int64_t column, Mine& mine);
  Logits logits_of(const Row& row) const;
  double token_sum(const Row& row) const;
  int64_t width_of(int64_t stretch) const;

  HeadTask task_;
  const Head* head_ = nullptr;
  uint32_t needs_ = 0;
  bool choose_ = false;
  int64_t stretches_ = 0, pieces_ = 0;

  HeadInput input_;
  std::vector<Row> rows_;
  std::vector<Row*> adjusted_, drawn_;  // drawn: plainly
  Buffer<float> logits_;
  Buffer<StretchSums> sums_;
  Buffer<Draw> draws_;
  std::vector<Mine> mine_;
};

}  // namespace offramp
