// The kernels in plain C++, on every machine; on some the compiler makes good vectors of it.

#include "../simd/portable.h"

#include "../kernels.h"

namespace offramp {
namespace {

// Rows in a block, and chains of float multiply-adds that hide their latency; see matmul.inl.
constexpr int kFloatRows = 4;
constexpr int kFloatChains = 4;
constexpr int kIntegerRows = 4;
constexpr int64_t kChunkBytes = 131072;
constexpr int64_t kPanelsTogether = 1;

}  // namespace
}  // namespace offramp

#include "../kernels/all.inl"

namespace offramp {

extern const Kernels portable_kernels;
const Kernels portable_kernels = make_kernels("portable");

}  // namespace offramp
