#include "descent.h"

#include <algorithm>
#include <limits>

namespace offramp {
namespace {

constexpr double kNarrowest = 0.25;
constexpr double kWiden = 2;
constexpr double kWidest = 1e4;  // beyond it, all the rest at once
constexpr float kLowest = std::numeric_limits<float>::lowest();

bool comes_later(const Place& a, const Place& b) {
  return a.logit < b.logit || (a.logit == b.logit && a.column > b.column);
}

}  // namespace

Descent::Descent(const Logits& logits, double width, std::vector<Place>* heap)
    : logits_(logits),
      heap_(heap),
      width_(std::max(width, kNarrowest)),
      above_(std::numeric_limits<float>::infinity()),
      floor_(above_) {
  heap_->clear();
}

bool Descent::next(Place* place) {
  while (heap_->empty()) {
    if (floor_ == kLowest) return false;
    gather();
  }
  std::pop_heap(heap_->begin(), heap_->end(), comes_later);
  *place = heap_->back();
  heap_->pop_back();
  return true;
}

void Descent::gather() {
  above_ = floor_;
  const double edge = static_cast<double>(logits_.best()) - width_;
  floor_ = width_ < kWidest && edge > kLowest ? static_cast<float>(edge) : kLowest;
  width_ *= kWiden;
  for (int64_t begin = 0, stretch = 0; begin < logits_.columns; begin += kStretch, ++stretch) {
    if (logits_.stretches[stretch].softmax.best < floor_) continue;
    const int64_t end = std::min(begin + kStretch, logits_.columns);
    for (int64_t column = begin; column < end; ++column) {
      const float logit = logits_.values[column];
      if (logit >= floor_ && logit < above_) heap_->push_back({logit, static_cast<int32_t>(column)});
    }
  }
  std::make_heap(heap_->begin(), heap_->end(), comes_later);
}

}  // namespace offramp
