// Called once per step and segment, so it uses the C API directly.
#include "batch.h"

#include <algorithm>
#include <limits>

namespace nb = nanobind;

namespace offramp {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw nb::value_error(message.c_str()); }

int64_t attribute(PyObject* object, const char* name) {
  const nb::object value = nb::steal(PyObject_GetAttrString(object, name));
  if (!value.is_valid()) nb::raise_python_error();
  return read_integer(value.ptr());
}

int32_t narrow(int64_t value, const char* what) {
  if (value < 0 || value > std::numeric_limits<int32_t>::max())
    refuse("there is no " + std::string(what) + " " + std::to_string(value));
  return static_cast<int32_t>(value);
}

// Calls `take(value)` for each of the first `most` integers of a sequence.
template <typename Take>
void for_each_integer(PyObject* object, const char* what, int64_t most, Take&& take) {
  const nb::object fast = nb::steal(PySequence_Fast(object, what));
  if (!fast.is_valid()) nb::raise_python_error();
  const Py_ssize_t count = std::min<int64_t>(PySequence_Fast_GET_SIZE(fast.ptr()), most);
  for (Py_ssize_t i = 0; i < count; ++i) take(read_integer(PySequence_Fast_GET_ITEM(fast.ptr(), i)));
}

void read_positions(PyObject* object, std::vector<int64_t>* positions) {
  if (PyRange_Check(object)) {
    const Py_ssize_t count = PyObject_Size(object);
    if (count < 0) nb::raise_python_error();
    const int64_t start = attribute(object, "start"), step = count > 1 ? attribute(object, "step") : 1;
    for (Py_ssize_t i = 0; i < count; ++i) positions->push_back(start + i * step);
    return;
  }
  for_each_integer(object, "positions must be a sequence", std::numeric_limits<int64_t>::max(),
                   [positions](int64_t value) { positions->push_back(value); });
}

}  // namespace

int64_t read_integer(PyObject* object) {
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
  if (value == -1 && !overflow && PyErr_Occurred()) nb::raise_python_error();
  if (overflow) return overflow > 0 ? std::numeric_limits<int64_t>::max() : std::numeric_limits<int64_t>::min();
  return value;
}

Batch read_batch(nb::handle rows, const Config& config, bool tokens) {
  const nb::object fast = nb::steal(PySequence_Fast(rows.ptr(), "a batch must be a sequence"));
  if (!fast.is_valid()) nb::raise_python_error();
  constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  Batch batch;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast.ptr()); ++i) {
    PyObject* sequence = PySequence_Fast_GET_ITEM(fast.ptr(), i);
    if (!PyTuple_Check(sequence) || PyTuple_GET_SIZE(sequence) != 3) refuse("a batch must be made of `SeqRows`");
    const int64_t before = batch.rows();
    read_positions(PyTuple_GET_ITEM(sequence, 0), &batch.positions);
    if (tokens) {
      for_each_integer(PyTuple_GET_ITEM(sequence, 1), "tokens must be a sequence", kAll,
                       [&batch](int64_t value) { batch.tokens.push_back(narrow(value, "token")); });
      if (static_cast<int64_t>(batch.tokens.size()) != batch.rows())
        refuse("there must be as many tokens as positions");
    }
    if (batch.rows() > before) {
      const int64_t last = std::clamp<int64_t>(batch.positions.back(), 0, config.max_positions);
      for_each_integer(PyTuple_GET_ITEM(sequence, 2), "blocks must be a sequence", last / config.block_size + 1,
                       [&batch](int64_t value) { batch.blocks.push_back(narrow(value, "block")); });
    }
    batch.row_begin.push_back(batch.rows());
    batch.block_begin.push_back(static_cast<int64_t>(batch.blocks.size()));
  }
  return batch;
}

}  // namespace offramp
