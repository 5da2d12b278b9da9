// The encoder of an encoder-decoder model, and the store of what it makes of sources.
#pragma once

#include <memory>
#include <vector>

#include "model.h"
#include "segment.h"

namespace offramp {

class SourceEncoder {
 public:
  // `config` and `layers` are the decoder's. All that is referred to must outlive this.
  SourceEncoder(Encoder encoder, const Config& config, const Matrix& embedding, const std::vector<Layer>& layers,
                Pool& pool);

  // Of a batch that has been checked: whole sources, with blocks of `store`.
  void run(const Batch& batch);

  Store& store() { return store_; }
  const Config& config() const { return config_; }  // of the store

 private:
  void reserve(int64_t num_blocks);

  const Encoder encoder_;
  const Config config_, stack_;
  const Matrix& embedding_;
  const std::vector<Layer>& layers_;
  Pool& pool_;
  Store store_;
  Rotary rotary_;
  const RelativeBias bias_;
  Passer writer_;

  // Hidden states, and K and V of one layer, while sources are encoded: block i of the batch is block i here.
  std::unique_ptr<Store> states_;
  std::unique_ptr<SegmentRunner> runner_;
};

}  // namespace offramp
