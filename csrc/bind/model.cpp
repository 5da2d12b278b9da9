// offramp._native.Model: the executor protocol, as plainly as it can be had.
#include "model.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "batch.h"
#include "bind.h"
#include "description.h"

namespace nb = nanobind;

namespace offramp {
namespace {

using Floats = nb::ndarray<nb::numpy, float, nb::ndim<1>>;
using GivenFloats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A model, the arrays it reads, and the class of what scoring gives.
struct PyModel {
  Kept kept;
  nb::type_object scored;
  std::unique_ptr<Model> model;
};

// What the store of sources is like; null without an encoder.
const Config* sources_of(const Model& model) {
  const Config& config = model.source_config();
  return config.num_blocks > 0 ? &config : nullptr;
}

// Computes without the GIL. What does not exist is a ValueError.
template <typename Function>
void compute(Function&& function) {
  try {
    const nb::gil_scoped_release release;
    function();
  } catch (const std::out_of_range& error) {
    throw nb::value_error(error.what());
  }
}

void construct(PyModel* self, nb::handle config, nb::handle embedding, nb::handle layers, nb::handle heads, int threads,
               nb::handle encoder) {
  if (threads < 1 || threads > 1024) throw nb::value_error("threads must be 1 to 1024");
  Kept kept;
  const Config c = read_config(config);
  const Matrix table = read_matrix(embedding, "embedding", &kept);
  std::vector<Layer> stack;
  for (nb::handle layer : layers) stack.push_back(read_layer(layer, &kept));
  std::vector<Head> ends;
  for (nb::handle head : heads) ends.push_back(read_head(head, &kept));
  auto model =
      std::make_unique<Model>(c, table, std::move(stack), std::move(ends), threads, read_encoder(encoder, &kept));
  nb::type_object scored(nb::module_::import_("offramp.types.executor").attr("Scored"));
  new (self) PyModel{std::move(kept), std::move(scored), std::move(model)};
}

void encode(PyModel& self, nb::handle rows) {
  Model& model = *self.model;
  model.wake();
  const Config* sources = sources_of(model);
  if (!sources) throw nb::value_error("there is no encoder");
  const Batch batch = read_sources(rows, *sources);
  compute([&] { model.encode(batch); });
}

void run_segment(PyModel& self, int64_t segment, nb::handle rows) {
  Model& model = *self.model;
  model.wake();
  const Batch batch = read_batch(rows, model.config(), segment == 0, sources_of(model));
  compute([&] { model.run_segment(segment, batch); });
}

void pass_tokens(PyModel& self, int64_t boundary, int64_t first, int64_t last, nb::handle rows) {
  Model& model = *self.model;
  model.wake();
  const Batch batch = read_batch(rows, model.config(), false);
  compute([&] { model.pass_tokens(boundary, first, last, batch); });
}

nb::list score(PyModel& self, int64_t boundary, nb::handle rows, nb::handle needs, bool choose) {
  self.model->wake();
  return score_rows(*self.model, boundary, rows, needs, choose, self.scored);
}

void copy_blocks(PyModel& self, nb::handle pairs) {
  std::vector<std::pair<int32_t, int32_t>> blocks;
  for (nb::handle pair : pairs) {
    int64_t ends[2] = {read_integer(nb::object(pair[0]).ptr()), read_integer(nb::object(pair[1]).ptr())};
    for (const int64_t block : ends) {
      if (block < 0 || block >= self.model->config().num_blocks) {
        throw nb::value_error(("there is no block " + std::to_string(block)).c_str());
      }
    }
    blocks.emplace_back(static_cast<int32_t>(ends[0]), static_cast<int32_t>(ends[1]));
  }
  compute([&] { self.model->copy_blocks(blocks); });
}

// --- For tests, and for packs that are trained on hidden states

Floats array_of(std::unique_ptr<float[]> values, int64_t count) {
  float* data = values.release();
  const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return Floats(data, {static_cast<size_t>(count)}, owner);
}

std::unique_ptr<float[]> make_floats(int64_t count) { return std::make_unique<float[]>(static_cast<size_t>(count)); }

Floats read_hidden(PyModel& self, int64_t boundary, int64_t slot) {
  const int64_t count = self.model->config().hidden;
  auto values = make_floats(count);
  compute([&] { self.model->read_hidden(boundary, slot, values.get()); });
  return array_of(std::move(values), count);
}

void write_hidden(PyModel& self, int64_t boundary, int64_t slot, GivenFloats hidden) {
  const int64_t count = self.model->config().hidden;
  if (static_cast<int64_t>(hidden.shape(0)) != count) throw nb::value_error("a hidden state has another size");
  compute([&] { self.model->write_hidden(boundary, slot, hidden.data()); });
}

// K and V of one token, as `read` finds them.
nb::tuple read_pair(const PyModel& self, void (Model::*read)(int64_t, int64_t, float*, float*) const, int64_t layer,
                    int64_t slot) {
  const Config& config = self.model->config();
  const int64_t count = config.kv_heads * config.head_dim;
  auto k = make_floats(count), v = make_floats(count);
  compute([&] { (*self.model.*read)(layer, slot, k.get(), v.get()); });
  return nb::make_tuple(array_of(std::move(k), count), array_of(std::move(v), count));
}

nb::tuple read_kv(PyModel& self, int64_t layer, int64_t slot) { return read_pair(self, &Model::read_kv, layer, slot); }

nb::tuple read_source(PyModel& self, int64_t layer, int64_t slot) {
  return read_pair(self, &Model::read_source, layer, slot);
}

void time(PyModel& self, bool on) {
  compute([&] { self.model->time(on); });
}

nb::dict timings(const PyModel& self) {
  Timings timings;
  compute([&] { timings = self.model->timings(); });
  nb::dict seconds;
  seconds["norm"] = timings.norm;
  seconds["product"] = timings.product;
  seconds["attention"] = timings.attention;
  seconds["other"] = timings.other;
  return seconds;
}

}  // namespace
}  // namespace offramp

void bind_model(nb::module_& m) {
  using namespace offramp;
  using nb::literals::operator""_a;
  nb::class_<PyModel>(m, "Model")
      .def("__init__", &construct, "config"_a, "embedding"_a, "layers"_a, "heads"_a, "threads"_a,
           "encoder"_a = nb::none())
      .def("encode", &encode, "batch"_a)
      .def("run_segment", &run_segment, "segment"_a, "batch"_a)
      .def("pass_tokens", &pass_tokens, "boundary"_a, "first"_a, "last"_a, "batch"_a)
      .def("score", &score, "boundary"_a, "rows"_a, "needs"_a, "choose"_a)
      .def("copy_blocks", &copy_blocks, "pairs"_a)
      .def("read_hidden", &read_hidden, "boundary"_a, "slot"_a)
      .def("write_hidden", &write_hidden, "boundary"_a, "slot"_a, "hidden"_a)
      .def("read_kv", &read_kv, "layer"_a, "slot"_a)
      .def("read_source", &read_source, "layer"_a, "slot"_a)
      .def("time", &offramp::time, "on"_a)
      .def("timings", &timings);
}
