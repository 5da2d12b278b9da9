// Batches come from Python: any sequence of `SeqRows`.
#pragma once

#include <nanobind/nanobind.h>

#include "model.h"

namespace offramp {

// Reads (positions, tokens, blocks, source) of each sequence; tokens only if asked for, blocks as far as positions
// reach, and the source only where `sources` is not null, which says what their store is like. Raises a Python
// exception for what is no such thing; whether positions and blocks exist is checked later.
Batch read_batch(nanobind::handle rows, const Config& config, bool tokens, const Config* sources = nullptr);

// Reads (tokens, blocks) of whole sources, likewise: any sequence of `SourceRows`.
Batch read_sources(nanobind::handle rows, const Config& sources);

// An integer; those that do not fit become the nearest that does.
int64_t read_integer(PyObject* object);

}  // namespace offramp
