// Rows to score come from Python, and what was found goes back.
//
// Called once per step and exit, so both ways use the C API directly: a greedy row costs well under a microsecond.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bind.h"
#include "model.h"

namespace nb = nanobind;

namespace offramp {
namespace {

constexpr const char* kFeatures[5] = {"max_prob", "margin", "entropy", "saturation", "classifier"};

// Interned names, made once and kept.
PyObject* name(const char* text) {
  PyObject* object = PyUnicode_InternFromString(text);
  if (!object) nb::raise_python_error();
  return object;
}

struct Names {
  PyObject* features[5];
  PyObject *temperature = name("temperature"), *top_p = name("top_p"), *top_k = name("top_k"), *min_p = name("min_p");
  PyObject *repetition = name("repetition_penalty"), *presence = name("presence_penalty");
  PyObject *frequency = name("frequency_penalty"), *bias = name("logit_bias"), *logprobs = name("logprobs");

  Names() {
    for (int i = 0; i < 5; ++i) features[i] = name(kFeatures[i]);
  }
};

const Names& names() {
  static const Names* all = new Names();  // outlives the interpreter's teardown
  return *all;
}

[[noreturn]] void refuse(const std::string& message) { throw nb::value_error(message.c_str()); }

nb::object attribute(PyObject* object, PyObject* key) {
  PyObject* value = PyObject_GetAttr(object, key);
  if (!value) nb::raise_python_error();
  return nb::steal(value);
}

double number(PyObject* object) {
  const double value = PyFloat_AsDouble(object);
  if (value == -1 && PyErr_Occurred()) nb::raise_python_error();
  return value;
}

double number(PyObject* object, PyObject* key) { return number(attribute(object, key).ptr()); }

// Integers that do not fit become the nearest that does.
int64_t integer(PyObject* object) {
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
  if (value == -1 && !overflow && PyErr_Occurred()) nb::raise_python_error();
  if (overflow) return overflow > 0 ? std::numeric_limits<int64_t>::max() : std::numeric_limits<int64_t>::min();
  return value;
}

// A token id; -1 for what cannot be one.
int32_t token(PyObject* object) {
  const int64_t value = integer(object);
  return value >= 0 && value <= std::numeric_limits<int32_t>::max() ? static_cast<int32_t>(value) : -1;
}

void read_tokens(PyObject* object, std::vector<int32_t>* tokens) {
  if (PyTuple_CheckExact(object) && PyTuple_GET_SIZE(object) == 0) return;
  const nb::object fast = nb::steal(PySequence_Fast(object, "token ids must be a sequence"));
  if (!fast.is_valid()) nb::raise_python_error();
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(fast.ptr());
  tokens->reserve(static_cast<size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) tokens->push_back(token(PySequence_Fast_GET_ITEM(fast.ptr(), i)));
}

// A row's mask, in as many bytes as the vocabulary takes: tokens beyond its end may not be chosen.
void read_mask(PyObject* object, int64_t vocab, std::vector<uint8_t>* mask) {
  if (object == Py_None) return;
  if (!PyBytes_Check(object)) throw nb::type_error("a mask must be `bytes`");
  mask->resize(static_cast<size_t>((vocab + 7) / 8));
  const size_t count = std::min(mask->size(), static_cast<size_t>(PyBytes_GET_SIZE(object)));
  std::memcpy(mask->data(), PyBytes_AS_STRING(object), count);
}

void read_bias(PyObject* object, Sampling* row) {
  if (PyDict_CheckExact(object)) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(object, &at, &key, &value)) {
      row->bias.emplace_back(token(key), static_cast<float>(number(value)));
    }
    return;
  }
  const nb::object items = nb::steal(PyMapping_Items(object));
  if (!items.is_valid()) nb::raise_python_error();
  for (nb::handle pair : items) row->bias.emplace_back(token(nb::object(pair[0]).ptr()), nb::cast<float>(pair[1]));
}

void read_sampling(PyObject* sampling, Sampling* row) {
  const Names& n = names();
  row->temperature = number(sampling, n.temperature);
  row->top_p = number(sampling, n.top_p);
  row->min_p = number(sampling, n.min_p);
  row->top_k = integer(attribute(sampling, n.top_k).ptr());
  row->repetition_penalty = number(sampling, n.repetition);
  row->presence_penalty = number(sampling, n.presence);
  row->frequency_penalty = number(sampling, n.frequency);
  read_bias(attribute(sampling, n.bias).ptr(), row);
  const nb::object logprobs = attribute(sampling, n.logprobs);
  row->logprobs = logprobs.is_none() ? -1 : std::max(token(logprobs.ptr()), 0);
}

// The slot of a position; `blocks` is any sequence.
int64_t read_slot(int64_t position, PyObject* blocks, const Config& config) {
  if (position < 0) refuse("a position is negative");
  const int64_t index = position / config.block_size;
  if (PyTuple_Check(blocks) || PyList_Check(blocks)) {
    if (index >= PySequence_Fast_GET_SIZE(blocks)) refuse("a block table does not reach its positions");
  } else {
    const Py_ssize_t size = PySequence_Size(blocks);
    if (size < 0) nb::raise_python_error();
    if (index >= size) refuse("a block table does not reach its positions");
  }
  const nb::object item = nb::steal(PySequence_GetItem(blocks, static_cast<Py_ssize_t>(index)));
  if (!item.is_valid()) nb::raise_python_error();
  const int64_t block = integer(item.ptr());
  if (block < 0 || block >= config.num_blocks) refuse("there is no block " + std::to_string(block));
  return block * config.block_size + position % config.block_size;
}

// All of a `ScoreRow` but `sampling`, which must have been read.
void read_row(PyObject* object, const Config& config, bool past, ScoreRow* row) {
  row->position = integer(PyTuple_GET_ITEM(object, 0));
  row->slot = read_slot(row->position, PyTuple_GET_ITEM(object, 1), config);
  if (past && row->position > 0) row->before = read_slot(row->position - 1, PyTuple_GET_ITEM(object, 1), config);
  row->seed = PyLong_AsUnsignedLongLongMask(PyTuple_GET_ITEM(object, 3));  // seeds count modulo 2^64
  if (row->seed == ~uint64_t{0} && PyErr_Occurred()) nb::raise_python_error();
  if (row->reads_history()) {
    read_tokens(PyTuple_GET_ITEM(object, 4), &row->prompt);
    read_tokens(PyTuple_GET_ITEM(object, 5), &row->output);
  }
  read_tokens(PyTuple_GET_ITEM(object, 6), &row->banned);
  read_mask(PyTuple_GET_ITEM(object, 7), config.vocab, &row->mask);
}

std::vector<ScoreRow> read_rows(nb::handle rows, const Config& config, bool past) {
  const nb::object fast = nb::steal(PySequence_Fast(rows.ptr(), "rows to score must be a sequence"));
  if (!fast.is_valid()) nb::raise_python_error();
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(fast.ptr());
  std::vector<ScoreRow> read(static_cast<size_t>(count));
  PyObject* last = nullptr;  // rows of one request, and requests without parameters of their own, share an object
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* object = PySequence_Fast_GET_ITEM(fast.ptr(), i);
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != 8) refuse("a row to score must be a `ScoreRow`");
    ScoreRow& row = read[static_cast<size_t>(i)];
    PyObject* sampling = PyTuple_GET_ITEM(object, 2);
    if (sampling == last) {
      static_cast<Sampling&>(row) = read[static_cast<size_t>(i) - 1];
    } else {
      read_sampling(sampling, &row);
    }
    last = sampling;
    read_row(object, config, past, &row);
  }
  return read;
}

uint32_t read_needs(nb::handle needs) {
  uint32_t mask = 0;
  for (nb::handle need : needs) {
    int feature = 0;
    while (feature < 5 && !nb::handle(names().features[feature]).equal(need)) ++feature;
    if (feature == 5) refuse("there is no feature `" + std::string(nb::str(need).c_str()) + "`");
    mask |= 1u << feature;
  }
  return mask;
}

nb::object logprobs_of(const Scored& scored) {
  if (scored.logprobs.empty()) return nb::none();
  const nb::object listed = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(scored.logprobs.size())));
  if (!listed.is_valid()) nb::raise_python_error();
  Py_ssize_t i = 0;
  for (const auto& [id, logprob] : scored.logprobs) {
    PyTuple_SET_ITEM(listed.ptr(), i++, nb::make_tuple(id, logprob).release().ptr());
  }
  return listed;
}

nb::dict features_of(const Scored& scored, uint32_t needs) {
  nb::dict features;
  for (int i = 0; i < 5; ++i) {
    if ((needs >> i & 1) != 0) features[nb::handle(names().features[i])] = scored.features[i];
  }
  return features;
}

}  // namespace

nb::list score_rows(Model& model, int64_t boundary, nb::handle rows, nb::handle needs, bool choose,
                    nb::type_object type) {
  if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type.ptr()), &PyTuple_Type)) refuse("`type` must be a tuple");
  const auto at = static_cast<size_t>(boundary - 1);
  const bool past = boundary > 0 && at < model.heads().size() && model.heads()[at].past;
  const std::vector<ScoreRow> read = read_rows(rows, model.config(), past);
  uint32_t mask = read_needs(needs);
  std::vector<Scored> all;
  try {
    const nb::gil_scoped_release release;
    all = model.score(boundary, read, mask, choose);
  } catch (const std::out_of_range& error) {
    refuse(error.what());
  }
  if (boundary == 1) mask &= ~static_cast<uint32_t>(saturation);  // there is no state to compare with
  nb::list results;
  for (const Scored& scored : all) {
    const nb::object token = scored.token < 0 ? nb::object(nb::none()) : nb::object(nb::int_(scored.token));
    const nb::tuple fields = nb::make_tuple(token, features_of(scored, mask), logprobs_of(scored));
    // What a NamedTuple's own `_make` does, without the call.
    const nb::tuple arguments = nb::make_tuple(fields);
    PyObject* made = PyTuple_Type.tp_new(reinterpret_cast<PyTypeObject*>(type.ptr()), arguments.ptr(), nullptr);
    if (!made) nb::raise_python_error();
    results.append(nb::steal(made));
  }
  return results;
}

}  // namespace offramp
