// Batches come from Python: any sequence of `SeqRows`.
#pragma once

#include <nanobind/nanobind.h>

#include "model.h"

namespace offramp {

// Reads (positions, tokens, blocks) of each sequence; tokens only if asked for, blocks as far as positions reach.
// Raises a Python exception for what is no such thing; whether positions and blocks exist is checked later.
Batch read_batch(nanobind::handle rows, const Config& config, bool tokens);

// An integer; those that do not fit become the nearest that does.
int64_t read_integer(PyObject* object);

}  // namespace offramp
