// Scores rows in blocks whose logits stay in cache; see scorer.h.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "scorer.h"

namespace offramp {
namespace {

constexpr int64_t kBlock = 32;  // rows scored together: a stretch of their logits fits in cache

}  // namespace

Scorer::Scorer(Pool* pool, Store* store, std::vector<Head> heads, int64_t vocab, float eps)
    : pool_(pool), store_(store), heads_(std::move(heads)), eps_(eps) {
  for (Head& head : heads_) prepare_head(head, store_->shape().hidden, vocab);
}

std::vector<Scored> Scorer::score(int64_t boundary, const std::vector<ScoreRow>& rows, uint32_t needs, bool choose) {
  if (boundary < 1 || boundary > static_cast<int64_t>(heads_.size())) throw std::out_of_range("no such boundary");
  const Head& head = heads_[boundary - 1];
  if ((needs & classifier) && head.classifier == Head::Classifier::none) {
    throw std::invalid_argument("`classifier` was asked for at an exit that has none");
  }
  const StoreShape& shape = store_->shape();
  const bool compare = (needs & saturation) && boundary > 1;
  const auto count = static_cast<int64_t>(rows.size());
  states_.clear();
  previous_.clear();
  past_.clear();
  deep_.clear();
  for (const ScoreRow& row : rows) {
    if (row.slot < 0 || std::max(row.slot, row.before) >= store_->num_slots()) throw std::out_of_range("no such slot");
    if (!row.mask.empty() && static_cast<int64_t>(row.mask.size()) * 8 < head.vocab()) {
      throw std::invalid_argument("a mask is shorter than the vocabulary");
    }
    states_.push_back(store_->hidden(boundary, row.slot));
    if (compare) previous_.push_back(store_->hidden(boundary - 1, row.slot));
    if (head.past) past_.push_back(row.before < 0 ? nullptr : store_->state(row.before));
    if (shape.states) deep_.push_back(store_->state(row.slot));
  }

  std::vector<Scored> scored(rows.size());
  for (int64_t first = 0; first < count; first += kBlock) {
    HeadTask task;
    task.head = &head;
    task.hidden = shape.hidden;
    task.eps = eps_;
    task.count = std::min(kBlock, count - first);
    task.states = states_.data() + first;
    task.previous = compare ? previous_.data() + first : nullptr;
    task.past = head.past ? past_.data() + first : nullptr;
    task.deep = shape.states ? deep_.data() + first : nullptr;
    task.classify = (needs & classifier) != 0;
    task.evaluate = choose || (needs & kTokenNeeds) != 0;
    task.scored = scored.data() + first;
    block_.prepare(task, rows.data() + first, needs, choose, pool_->size());
    pool_->run([this](Worker& worker) { block_.run(worker); });
  }
  return scored;
}

}  // namespace offramp
