// What this machine can do at best: the ceilings that the kernels are held against.
#pragma once

#include <cstdint>

#include "pool.h"

namespace offramp {

// GB/s of reading memory that no cache holds, by all threads together.
double measure_read(Pool& pool);

// 10^9 additions and multiplications a second in the registers, by all threads together: of floats, fused; of int16
// pairs, as integer weights are multiplied.
double measure_float(Pool& pool);
double measure_integer(Pool& pool);

}  // namespace offramp
