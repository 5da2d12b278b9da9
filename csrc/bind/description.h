// Models come from Python as mappings by the names of the fields in model.h and head.h.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <vector>

#include "model.h"

namespace offramp {

// Arrays that matrices point into. Each holds its buffer, so that its owner cannot move or free it.
using Bytes = nanobind::ndarray<const uint8_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using Kept = std::vector<Bytes>;

Config read_config(nanobind::handle description);

// (type, n, k, data); the array is checked against what the matrix needs, and added to `kept`.
Matrix read_matrix(nanobind::handle matrix, const char* name, Kept* kept);

Layer read_layer(nanobind::handle description, Kept* kept);
// A mapping by the names of `Encoder`, or none.
std::optional<Encoder> read_encoder(nanobind::handle description, Kept* kept);
Head read_head(nanobind::handle description, Kept* kept);

}  // namespace offramp
