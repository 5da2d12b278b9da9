#include "source_encoder.h"

#include <utility>

namespace offramp {
namespace {

constexpr int64_t kBlock = kPanel;  // positions: attention reads K and V where they lie

Config store_config(Config c, const Encoder& encoder) {
  c.max_positions = encoder.max_length;
  c.num_blocks = encoder.num_blocks;
  return c;
}

Config stack_config(Config c, const Encoder& encoder) {
  c.bias = encoder.bias;
  c.layers_at = {0, static_cast<int64_t>(encoder.layers.size())};
  c.block_size = kBlock;
  return c;
}

}  // namespace

SourceEncoder::SourceEncoder(Encoder encoder, const Config& config, const Matrix& embedding,
                             const std::vector<Layer>& layers, Pool& pool)
    : encoder_(std::move(encoder)),
      config_(store_config(config, encoder_)),
      stack_(stack_config(config, encoder_)),
      embedding_(embedding),
      layers_(layers),
      pool_(pool),
      store_(store_shape(config_, static_cast<int64_t>(layers.size()), 0)),
      rotary_({}, 1),
      bias_(encoder_.bias, config.heads),
      writer_({config_, embedding_, layers_, pool_, store_, rotary_, bias_}, &Layer::cross_kv) {}

void SourceEncoder::run(const Batch& batch) {
  if (batch.rows() == 0) return;
  Batch own;
  own.positions = batch.positions;
  own.tokens = batch.tokens;
  own.row_begin = batch.row_begin;
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const int64_t blocks = ceil_div(batch.row_begin[s + 1] - batch.row_begin[s], kBlock);
    for (int64_t i = 0; i < blocks; ++i) own.blocks.push_back(static_cast<int32_t>(own.blocks.size()));
    own.block_begin.push_back(static_cast<int64_t>(own.blocks.size()));
  }
  reserve(static_cast<int64_t>(own.blocks.size()));
  runner_->run(0, own);
  std::vector<int64_t> slots;
  find_slots(own, kBlock, &slots);
  std::vector<const float*> states;
  states.reserve(slots.size());
  for (const int64_t slot : slots) states.push_back(states_->hidden(1, slot));
  writer_.run(states, encoder_.norm.data(), 0, static_cast<int64_t>(layers_.size()), batch);
}

void SourceEncoder::reserve(int64_t num_blocks) {
  if (states_ && states_->shape().num_blocks >= num_blocks) return;
  StoreShape shape = store_shape(stack_, 1, 1);
  shape.num_blocks = num_blocks;
  shape.half = false;
  runner_.reset();
  states_.reset();
  states_ = std::make_unique<Store>(shape);
  const Machine machine = {stack_, embedding_, encoder_.layers, pool_, *states_, rotary_, bias_, nullptr, true};
  runner_ = std::make_unique<SegmentRunner>(machine);
}

}  // namespace offramp
