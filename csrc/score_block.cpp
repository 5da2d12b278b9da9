#include "score_block.h"

#include <algorithm>
#include <cmath>

namespace offramp {
namespace {

constexpr int64_t kStretchPanels = kStretch / kPanel;
constexpr int64_t kPiece = 8;       // stretches of a row that a thread draws from, or sweeps, at once
constexpr double kLogprobBand = 4;  // nats of the first band of a descent

}  // namespace

void ScoreBlock::prepare(const HeadTask& task, const ScoreRow* rows, uint32_t needs, bool choose, int threads) {
  task_ = task;
  head_ = task.head;
  needs_ = needs;
  choose_ = choose;
  stretches_ = ceil_div(head_->matrix.n, kStretch);
  pieces_ = ceil_div(stretches_, kPiece);
  rows_.resize(std::max(rows_.size(), static_cast<size_t>(task.count)));
  for (int64_t i = 0; i < task.count; ++i) {
    rows_[i] = Row();
    rows_[i].how = rows + i;
    rows_[i].scored = task.scored + i;
  }
  reserve(threads);
}

void ScoreBlock::reserve(int threads) {
  input_.reserve(task_);
  adjusted_.clear();
  drawn_.clear();
  if (!task_.evaluate) return;
  int64_t kept = 0;
  bool ranked = false;  // whether a row asks for columns in order
  const auto keeps = [this](const ScoreRow& how) {
    return how.adjusts() || (choose_ && (how.samples() || how.logprobs >= 0));
  };
  for (int64_t i = 0; i < task_.count; ++i) kept += keeps(*rows_[i].how);
  const int64_t stride = stretches_ * kStretch;
  float* logits = logits_.reserve(kept * stride);
  StretchSums* sums = sums_.reserve(task_.count * stretches_);
  Draw* draws = draws_.reserve(task_.count * pieces_);
  for (int64_t i = 0; i < task_.count; ++i) {
    Row& row = rows_[i];
    const ScoreRow& how = *row.how;
    const bool logprobs = choose_ && how.logprobs >= 0, samples = choose_ && how.samples();
    row.stretches = sums + i * stretches_;
    row.draws = draws + i * pieces_;
    if (keeps(how)) {
      row.logits = logits;
      logits += stride;
    }
    row.adjusted = how.adjusts();
    row.truncated = samples && truncates(how, head_->tokens());
    row.wanted.sums = (needs_ & kTokenNeeds) != 0 || logprobs;
    row.wanted.tempered = row.truncated && needs_total(how, head_->tokens());
    row.wanted.temperature = how.temperature;
    if (row.adjusted) adjusted_.push_back(&row);
    if (samples && !row.truncated) drawn_.push_back(&row);
    if (logprobs) row.scored->logprobs.reserve(static_cast<size_t>(how.logprobs) + 1);
    ranked = ranked || logprobs || row.truncated;
  }
  if (static_cast<int>(mine_.size()) < threads) mine_.resize(threads);
  for (Mine& mine : mine_) {
    mine.tile.reserve(task_.count * kStretch);
    mine.line.reserve(kStretch);
    if (!adjusted_.empty()) mine.counts.reserve(head_->vocab());
    if (ranked) {
      mine.heap.reserve(static_cast<size_t>(head_->tokens()));
      mine.kept.reserve(static_cast<size_t>(head_->tokens()));
    }
  }
}

void ScoreBlock::run(Worker& worker) {
  input_.compute(worker, task_);
  if (!task_.evaluate) return;
  Mine& mine = mine_[worker.index()];
  worker.share(stretches_, 1, [&](int64_t begin, int64_t end) {
    for (int64_t stretch = begin; stretch < end; ++stretch) project(stretch, mine);
  });
  if (!adjusted_.empty()) {
    const auto count = static_cast<int64_t>(adjusted_.size());
    worker.share(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Row& row = *adjusted_[i];
        row.allowed = adjust(*row.how, *head_, row.logits, mine.counts);
      }
    });
    worker.share(count * stretches_, kPiece, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Row& row = *adjusted_[i / stretches_];
        const int64_t stretch = i % stretches_;
        sweep(row, stretch, row.logits + stretch * kStretch, mine);
      }
    });
  }
  worker.share(task_.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) judge(rows_[i], mine);
  });
  if (drawn_.empty()) return;
  worker.share(static_cast<int64_t>(drawn_.size()) * pieces_, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Row& row = *drawn_[i / pieces_];
      const int64_t piece = i % pieces_, first = piece * kPiece * kStretch;
      const int64_t last = std::min(first + kPiece * kStretch, head_->tokens());
      if (row.speaks) row.draws[piece] = draw_plain(*row.how, *head_, logits_of(row), first, last);
    }
  });
  worker.share(static_cast<int64_t>(drawn_.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) conclude(*drawn_[i], mine);
  });
}

int64_t ScoreBlock::width_of(int64_t stretch) const { return std::min(kStretch, head_->matrix.n - stretch * kStretch); }

Logits ScoreBlock::logits_of(const Row& row) const {
  return {row.logits, head_->tokens(), row.sums.softmax.argmax, row.stretches};
}

// The logits of a stretch in all rows. Rows that are not adjusted are swept while they are at hand.
void ScoreBlock::project(int64_t stretch, Mine& mine) {
  const int64_t width = width_of(stretch), first = stretch * kStretchPanels;
  const int64_t last = std::min(first + kStretchPanels, head_->matrix.panels());
  kernels().matmul(head_->matrix, input_.rows(task_), first, last, mine.tile.get(), kStretch, false);
  for (int64_t i = 0; i < task_.count; ++i) {
    Row& row = rows_[i];
    float* logits = mine.tile.get() + i * kStretch;
    if (head_->other && stretch == stretches_ - 1) logits[width - 1] += head_->other_bias;
    if (head_->temperature != 1) {
      for (int64_t c = 0; c < width; ++c) logits[c] /= head_->temperature;
    }
    if (row.logits) std::copy_n(logits, width, row.logits + stretch * kStretch);
    if (!row.adjusted) sweep(row, stretch, logits, mine);
  }
}

void ScoreBlock::sweep(Row& row, int64_t stretch, const float* logits, Mine& mine) {
  sum_stretch(logits, width_of(stretch), row.wanted, mine.line.get(), row.stretches + stretch);
}

// The sum of exp((logit - best) / temperature) over tokens: "other" is no part of what is drawn from.
double ScoreBlock::token_sum(const Row& row) const {
  if (!head_->other) return row.sums.tempered;
  const double below = static_cast<double>(row.logits[head_->tokens()]) - row.sums.softmax.best;
  return row.sums.tempered - std::exp(below / row.how->temperature);
}

// Features, and every choice but those of plain draws.
void ScoreBlock::judge(Row& row, Mine& mine) {
  row.sums = combine(row.stretches, stretches_, row.wanted);
  const Softmax& softmax = row.sums.softmax;
  row.speaks = row.allowed && softmax.finite && softmax.argmax < head_->tokens();
  if (needs_ & kTokenNeeds) write_features(softmax, head_->matrix.n, !row.speaks, needs_, row.scored->features);
  if (!choose_ || !row.speaks) return;
  int64_t column = softmax.argmax;
  if (row.truncated) {
    column = draw_truncated(*row.how, *head_, logits_of(row), token_sum(row), &mine.heap, &mine.kept).column;
  } else if (row.how->samples()) {
    return;
  }
  row.scored->token = head_->token(column);
  list_logprobs(row, column, mine);
}

// A plain draw, from its pieces.
void ScoreBlock::conclude(Row& row, Mine& mine) {
  if (!row.speaks) return;
  Draw best = row.draws[0];
  for (int64_t piece = 1; piece < pieces_; ++piece) best = better(best, row.draws[piece]);
  row.scored->token = head_->token(best.column);
  list_logprobs(row, best.column, mine);
}

// The log-probability of the chosen column, then those of the most likely ones.
void ScoreBlock::list_logprobs(Row& row, int64_t column, Mine& mine) {
  if (row.how->logprobs < 0) return;
  const double total = std::log(row.sums.softmax.sum) + row.sums.softmax.best;
  auto& listed = row.scored->logprobs;
  const auto list = [&](int64_t c, float logit) {
    listed.emplace_back(head_->token(c), static_cast<float>(static_cast<double>(logit) - total));
  };
  list(column, row.logits[column]);
  Descent descent(logits_of(row), kLogprobBand, &mine.heap);
  Place place;
  for (int32_t i = 0; i < row.how->logprobs && descent.next(&place); ++i) list(place.column, place.logit);
}

}  // namespace offramp
