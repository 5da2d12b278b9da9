// What a model is made of; see model.h.
#pragma once

#include <mutex>
#include <vector>

#include "model.h"
#include "pool.h"
#include "rotary.h"
#include "scorer.h"
#include "segment.h"
#include "store.h"

namespace offramp {

struct Model::Impl {
  Impl(Config c, Matrix table, std::vector<Layer> stack, std::vector<Head> heads, int threads);

  std::mutex calls;  // one at a time: scratch is shared
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
