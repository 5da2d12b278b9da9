// What a model is made of; see model.h.
#pragma once

#include <vector>

#include "model.h"
#include "model_lock.h"
#include "pool.h"
#include "rotary.h"
#include "scorer.h"
#include "segment.h"
#include "store.h"

namespace offramp {

struct Model::Impl {
  Impl(Config c, Matrix table, std::vector<Layer> stack, std::vector<Head> heads, int threads);

  float* hidden(int64_t boundary, int64_t slot) const;  // throws std::out_of_range

  ModelLock calls;
  const Config config;
  const Matrix embedding;
  const std::vector<Layer> layers;
  Pool pool;
  Store store;
  Scorer scorer;
  Rotary rotary;
  SegmentRunner runner;
  Passer passer;
};

}  // namespace offramp
