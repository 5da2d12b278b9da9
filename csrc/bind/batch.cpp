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

int64_t length_of(PyObject* sequence) {
  const Py_ssize_t length = PySequence_Size(sequence);
  if (length < 0) nb::raise_python_error();
  return length;
}

// Calls `take(value)` for each of the first `count` integers of a sequence, which has as many.
template <typename Take>
void for_each_integer(PyObject* sequence, int64_t count, Take&& take) {
  const bool fast = PyList_Check(sequence) || PyTuple_Check(sequence);
  for (Py_ssize_t i = 0; i < count; ++i) {
    // Reading an integer may run Python code, which may shorten a list.
    if (fast && i < PySequence_Fast_GET_SIZE(sequence)) {
      const nb::object item = nb::borrow(PySequence_Fast_GET_ITEM(sequence, i));
      take(read_integer(item.ptr()));
      continue;
    }
    const nb::object item = nb::steal(PySequence_GetItem(sequence, i));
    if (!item.is_valid()) nb::raise_python_error();
    take(read_integer(item.ptr()));
  }
}

void read_range(PyObject* range, int64_t count, std::vector<int64_t>* positions) {
  if (count == 0) return;
  const int64_t start = attribute(range, "start"), step = count > 1 ? attribute(range, "step") : 1;
  int64_t last = 0;
  if (__builtin_mul_overflow(count - 1, step, &last) || __builtin_add_overflow(start, last, &last)) {
    refuse("there is no position as far as the range goes");
  }
  for (int64_t i = 0; i < count; ++i) positions->push_back(start + i * step);
}

// A range may be long without taking memory, so its length is checked before it is written out.
void read_positions(PyObject* object, int64_t max_positions, std::vector<int64_t>* positions) {
  const Py_ssize_t length = PySequence_Size(object);
  if (length < 0 && !PyErr_ExceptionMatches(PyExc_OverflowError)) nb::raise_python_error();
  if (length < 0 || length > max_positions) {
    PyErr_Clear();
    refuse("there are more positions than the context of " + std::to_string(max_positions));
  }
  if (PyRange_Check(object)) {
    read_range(object, length, positions);
  } else {
    for_each_integer(object, length, [positions](int64_t value) { positions->push_back(value); });
  }
}

PyObject* tuple_at(PyObject* fast, Py_ssize_t i, Py_ssize_t size, const char* otherwise) {
  PyObject* tuple = PySequence_Fast_GET_ITEM(fast, i);
  if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != size) refuse(otherwise);
  return tuple;
}

// The first `needed` blocks of a table, or as many as it has.
void read_blocks(PyObject* table, int64_t needed, std::vector<int32_t>* blocks) {
  for_each_integer(table, std::min(length_of(table), needed),
                   [blocks](int64_t value) { blocks->push_back(narrow(value, "block")); });
}

// A `Source`; none has length 0.
SourcePlace read_place(PyObject* source, const Config& sources, std::vector<int32_t>* blocks) {
  SourcePlace place;
  if (source == Py_None) return place;
  if (!PyTuple_Check(source) || PyTuple_GET_SIZE(source) != 2) refuse("a source must be a `Source`");
  place.length = read_integer(PyTuple_GET_ITEM(source, 0));
  place.begin = static_cast<int64_t>(blocks->size());
  const int64_t last = std::clamp<int64_t>(place.length, 0, sources.max_positions);
  read_blocks(PyTuple_GET_ITEM(source, 1), ceil_div(last, sources.block_size), blocks);
  place.end = static_cast<int64_t>(blocks->size());
  return place;
}

}  // namespace

int64_t read_integer(PyObject* object) {
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
  if (value == -1 && !overflow && PyErr_Occurred()) nb::raise_python_error();
  if (overflow) return overflow > 0 ? std::numeric_limits<int64_t>::max() : std::numeric_limits<int64_t>::min();
  return value;
}

Batch read_batch(nb::handle rows, const Config& config, bool tokens, const Config* sources) {
  const nb::object fast = nb::steal(PySequence_Fast(rows.ptr(), "a batch must be a sequence"));
  if (!fast.is_valid()) nb::raise_python_error();
  Batch batch;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast.ptr()); ++i) {
    PyObject* sequence = tuple_at(fast.ptr(), i, 4, "a batch must be made of `SeqRows`");
    const int64_t before = batch.rows();
    read_positions(PyTuple_GET_ITEM(sequence, 0), config.max_positions, &batch.positions);
    const int64_t rows = batch.rows() - before;
    if (tokens) {
      PyObject* given = PyTuple_GET_ITEM(sequence, 1);
      if (length_of(given) != rows) refuse("there must be as many tokens as positions");
      for_each_integer(given, rows, [&batch](int64_t value) { batch.tokens.push_back(narrow(value, "token")); });
    }
    if (rows > 0) {
      const int64_t last = std::clamp<int64_t>(batch.positions.back(), 0, config.max_positions);
      read_blocks(PyTuple_GET_ITEM(sequence, 2), last / config.block_size + 1, &batch.blocks);
    }
    if (sources) batch.sources.push_back(read_place(PyTuple_GET_ITEM(sequence, 3), *sources, &batch.source_blocks));
    batch.row_begin.push_back(batch.rows());
    batch.block_begin.push_back(static_cast<int64_t>(batch.blocks.size()));
  }
  return batch;
}

Batch read_sources(nb::handle rows, const Config& sources) {
  const nb::object fast = nb::steal(PySequence_Fast(rows.ptr(), "a batch must be a sequence"));
  if (!fast.is_valid()) nb::raise_python_error();
  Batch batch;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast.ptr()); ++i) {
    PyObject* source = tuple_at(fast.ptr(), i, 2, "a batch of sources must be made of `SourceRows`");
    PyObject* tokens = PyTuple_GET_ITEM(source, 0);
    const int64_t count = length_of(tokens);
    if (count > sources.max_positions) {
      refuse("a source has " + std::to_string(count) + " tokens; the longest has " +
             std::to_string(sources.max_positions));
    }
    for_each_integer(tokens, count, [&batch](int64_t value) { batch.tokens.push_back(narrow(value, "token")); });
    for (int64_t p = 0; p < count; ++p) batch.positions.push_back(p);
    read_blocks(PyTuple_GET_ITEM(source, 1), ceil_div(count, sources.block_size), &batch.blocks);
    batch.row_begin.push_back(batch.rows());
    batch.block_begin.push_back(static_cast<int64_t>(batch.blocks.size()));
  }
  return batch;
}

}  // namespace offramp
