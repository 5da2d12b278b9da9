// What the files of the Python module have in common.
#pragma once

#include <nanobind/nanobind.h>

void bind_kernels(nanobind::module_& m);  // kernels.cpp: packing, instruction sets, kernels one by one
void bind_model(nanobind::module_& m);    // model.cpp: the model

namespace offramp {
class Model;

// score.cpp: Model.score(boundary, rows, needs, choose, type), a list of `type`, which is
// offramp.types.executor.Scored.
nanobind::list score_rows(Model& model, int64_t boundary, nanobind::handle rows, nanobind::handle needs, bool choose,
                          nanobind::type_object type);
}  // namespace offramp
