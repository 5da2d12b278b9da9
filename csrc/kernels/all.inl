// All kernels, for the vectors of the including file (csrc/isa/*.cpp), and the table of them.
//
// Everything here is in an anonymous namespace: the linker must never put code made for one instruction set where
// another file asks for a function of the same name.

#include "elementwise.inl"
#include "matmul_float.inl"
#include "matmul_integer.inl"

#include "matmul.inl"

#include "attention.inl"
#include "peak.inl"
#include "softmax.inl"

namespace offramp {
namespace {

constexpr Kernels make_kernels(const char* name) {
  return {name,   quantize, matmul,    rms_norm, silu_mul, gelu_mul,   relu,        add,
          rotate, to_half,  from_half, attend,   softmax,  peak_float, peak_integer};
}

}  // namespace
}  // namespace offramp
