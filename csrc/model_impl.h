// What a model is made of; see model.h.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "model.h"
#include "model_lock.h"
#include "pool.h"
#include "rotary.h"
#include "scorer.h"
#include "segment.h"
#include "source_encoder.h"
#include "store.h"

namespace offramp {

struct Model::Impl {
  Impl(Config c, Matrix table, std::vector<Layer> stack, std::vector<Head> heads, int threads,
       std::optional<Encoder> other);

  float* hidden(int64_t boundary, int64_t slot) const;  // throws std::out_of_range
  SourceEncoder& sources() const;                       // throws std::out_of_range where there are none

  ModelLock calls;
  const Config config;
  const Matrix embedding;
  const std::vector<Layer> layers;
  Pool pool;
  Store store;
  Scorer scorer;
  Rotary rotary;
  const RelativeBias bias;
  const std::unique_ptr<SourceEncoder> encoder;  // or none
  SegmentRunner runner;
  Passer passer;
};

}  // namespace offramp
