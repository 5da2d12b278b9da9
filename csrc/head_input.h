// From hidden states to what the matrix of a head reads, and the features that are read off hidden states.
#pragma once

#include <cstdint>

#include "head.h"
#include "operand.h"
#include "pool.h"

namespace offramp {

// The rows of one call.
struct HeadTask {
  const Head* head = nullptr;
  int64_t hidden = 0;
  float eps = 0;
  int64_t count = 0;
  const float* const* states = nullptr;    // [count] hidden states
  const float* const* previous = nullptr;  // [count] at the boundary before; null where saturation is not asked for
  const float* const* past = nullptr;      // [count] deep states of the tokens before, null: 0; if the head reads them
  float* const* deep = nullptr;            // [count] where deep states are written, if `evaluate`; or null
  bool classify = false;
  bool evaluate = false;     // whether the matrix will be applied
  Scored* scored = nullptr;  // [count]; features are written
};

class HeadInput {
 public:
  void reserve(const HeadTask& task);

  // Called by every thread of a team.
  void compute(Worker& worker, const HeadTask& task);

  // After compute, if `evaluate`.
  Rows rows(const HeadTask& task) const;

 private:
  void join(Worker& worker, const HeadTask& task);
  const float* state(const HeadTask& task, int64_t row) const;
  void keep(const HeadTask& task, int64_t row, const float* state) const;
  void start(const HeadTask& task, int64_t row);
  void adapt(Worker& worker, const HeadTask& task);
  void classify(Worker& worker, const HeadTask& task);

  Operand pair_;                        // norms of h and of the past
  Buffer<float> joined_;                // h with the past
  Operand normed_;                      // norm(h)
  Operand source_;                      // what the adapter reads
  Operand gated_;                       // silu(gate x) * up x
  Operand adapted_;                     // norm(h + adapter)
  Buffer<float> sums_, gate_up_, low_;  // h + adapter; projections of the adapter and of the classifier
};

}  // namespace offramp
