// The kernels for AVX2 with FMA and F16C.
#if defined(__x86_64__)

#include "../simd/avx2.h"

#include "../kernels.h"

namespace offramp {
namespace {

// Rows in a block, and chains of float multiply-adds that hide their latency; see matmul.inl.
constexpr int kFloatRows = 6;
constexpr int kFloatChains = 6;
constexpr int kIntegerRows = 4;
constexpr int64_t kChunkBytes = 262144;
constexpr int64_t kPanelsTogether = 1;

}  // namespace
}  // namespace offramp

#include "../kernels/all.inl"

namespace offramp {

extern const Kernels avx2_kernels;
const Kernels avx2_kernels = make_kernels("avx2");

}  // namespace offramp

#endif
