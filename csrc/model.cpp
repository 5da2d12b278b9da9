#include "model.h"

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "check.h"
#include "model_impl.h"

namespace offramp {
namespace {

using Lock = std::lock_guard<ModelLock>;

void check_place(const char* what, int64_t index, int64_t first, int64_t end) {
  if (index < first || index >= end) {
    throw std::out_of_range("there is no " + std::string(what) + " " + std::to_string(index));
  }
}

Config checked(Config c, const Matrix& embedding, const std::vector<Layer>& layers, size_t heads,
               const std::optional<Encoder>& encoder) {
  check_model(c, embedding, layers, heads, encoder ? &*encoder : nullptr);
  return c;
}

StoreShape shape_of(const Config& c, size_t layers, const std::vector<Head>& heads) {
  StoreShape shape = store_shape(c, static_cast<int64_t>(layers), static_cast<int64_t>(c.layers_at.size()) - 1);
  shape.states = std::any_of(heads.begin(), heads.end(), [](const Head& head) { return head.past; });
  return shape;
}

}  // namespace

Model::Impl::Impl(Config c, Matrix table, std::vector<Layer> stack, std::vector<Head> heads, int threads,
                  std::optional<Encoder> other)
    : config(checked(std::move(c), table, stack, heads.size(), other)),
      embedding(table),
      layers(std::move(stack)),
      pool(threads),
      store(shape_of(config, layers.size(), heads)),
      scorer(&pool, &store, std::move(heads), config.vocab, config.eps),
      rotary(config.frequencies, config.rope_factor),
      bias(config.bias, config.heads),
      encoder(other ? std::make_unique<SourceEncoder>(*std::move(other), config, embedding, layers, pool) : nullptr),
      runner({config, embedding, layers, pool, store, rotary, bias, encoder ? &encoder->store() : nullptr}),
      passer({config, embedding, layers, pool, store, rotary, bias}, &Layer::passing) {}

float* Model::Impl::hidden(int64_t boundary, int64_t slot) const {
  check_place("boundary", boundary, 1, store.shape().boundaries + store.shape().states + 1);
  check_place("slot", slot, 0, store.num_slots());
  return store.hidden(boundary, slot);
}

SourceEncoder& Model::Impl::sources() const {
  if (!encoder) throw std::out_of_range("there is no encoder");
  return *encoder;
}

Model::Model(Config config, Matrix embedding, std::vector<Layer> layers, std::vector<Head> heads, int threads,
             std::optional<Encoder> encoder)
    : impl_(std::make_unique<Impl>(std::move(config), embedding, std::move(layers), std::move(heads), threads,
                                   std::move(encoder))) {}

Model::~Model() = default;

void Model::encode(const Batch& batch) {
  SourceEncoder& encoder = impl_->sources();
  check_sources(encoder.config(), batch);
  Lock lock(impl_->calls);
  encoder.run(batch);
}

void Model::run_segment(int64_t segment, const Batch& batch) {
  const int64_t segments = static_cast<int64_t>(impl_->config.layers_at.size()) - 1;
  if (segment < 0 || segment >= segments) throw std::out_of_range("there is no segment " + std::to_string(segment));
  check_batch(impl_->config, batch, segment == 0);
  if (impl_->encoder) check_places(impl_->encoder->config(), batch);
  Lock lock(impl_->calls);
  impl_->runner.run(segment, batch);
}

void Model::pass_tokens(int64_t boundary, int64_t first_segment, int64_t last_segment, const Batch& batch) {
  const std::vector<int64_t>& at = impl_->config.layers_at;
  const int64_t segments = static_cast<int64_t>(at.size()) - 1;
  if (boundary < 1 || boundary > segments) throw std::out_of_range("there is no boundary " + std::to_string(boundary));
  if (first_segment < 0 || last_segment > segments || first_segment > last_segment) {
    throw std::out_of_range("there are no segments " + std::to_string(first_segment) + " to " +
                            std::to_string(last_segment));
  }
  check_batch(impl_->config, batch, false);
  Lock lock(impl_->calls);
  impl_->passer.run(boundary, at[first_segment], at[last_segment], batch);
}

std::vector<Scored> Model::score(int64_t boundary, const std::vector<ScoreRow>& rows, uint32_t needs, bool choose) {
  Lock lock(impl_->calls);
  return impl_->scorer.score(boundary, rows, needs, choose);
}

void Model::copy_blocks(const std::vector<std::pair<int32_t, int32_t>>& pairs) {
  Lock lock(impl_->calls);
  impl_->store.copy_blocks(pairs);
}

void Model::time(bool on) {
  Lock lock(impl_->calls);
  impl_->runner.timed = on;
  impl_->runner.timings = Timings();
}

Timings Model::timings() const {
  Lock lock(impl_->calls);
  return impl_->runner.timings;
}

void Model::read_hidden(int64_t boundary, int64_t slot, float* to) const {
  Lock lock(impl_->calls);
  std::copy_n(impl_->hidden(boundary, slot), impl_->config.hidden, to);
}

void Model::write_hidden(int64_t boundary, int64_t slot, const float* from) {
  Lock lock(impl_->calls);
  std::copy_n(from, impl_->config.hidden, impl_->hidden(boundary, slot));
}

void Model::read_kv(int64_t layer, int64_t slot, float* k, float* v) const {
  Lock lock(impl_->calls);
  check_place("layer", layer, 0, impl_->store.shape().layers);
  check_place("slot", slot, 0, impl_->store.num_slots());
  impl_->store.read(layer, slot, k, v);
}

void Model::read_source(int64_t layer, int64_t slot, float* k, float* v) const {
  const Store& store = impl_->sources().store();
  Lock lock(impl_->calls);
  check_place("layer", layer, 0, store.shape().layers);
  check_place("slot", slot, 0, store.num_slots());
  store.read(layer, slot, k, v);
}

Store& Model::store() { return impl_->store; }
Store& Model::sources() { return impl_->sources().store(); }
const Config& Model::config() const { return impl_->config; }

const Config& Model::source_config() const {
  static const Config none;
  return impl_->encoder ? impl_->encoder->config() : none;
}

const std::vector<Head>& Model::heads() const { return impl_->scorer.heads(); }
void Model::wake() { impl_->pool.wake(); }

}  // namespace offramp
