// The kernels for AVX-512 with VNNI.
#if defined(__x86_64__)
// GCC 12 takes the undefined operand of its own intrinsics for a use of an uninitialised variable.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "../simd/avx512.h"

#include "../kernels.h"

namespace offramp {
namespace {

// Rows in a block, and chains of float multiply-adds that hide their latency; see matmul.inl.
constexpr int kFloatRows = 8;
constexpr int kFloatChains = 12;
constexpr int kIntegerRows = 8;
constexpr int64_t kChunkBytes = 262144;
constexpr int64_t kPanelsTogether = 1;

}  // namespace
}  // namespace offramp

#include "../kernels/all.inl"

namespace offramp {

extern const Kernels avx512_kernels;
const Kernels avx512_kernels = make_kernels("avx512");

}  // namespace offramp

#endif
