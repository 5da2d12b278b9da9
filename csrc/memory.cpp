#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "weights.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

namespace offramp {
namespace {

constexpr int64_t kHugePage = int64_t{1} << 21;

}  // namespace

Memory::Memory(int64_t bytes) {
  if (bytes < 0 || bytes > std::numeric_limits<int64_t>::max() / 2) throw std::bad_alloc();
#if defined(__unix__) || defined(__APPLE__)
  if (bytes >= kHugePage) {
    mapped_ = round_up(bytes, kHugePage) + kHugePage;  // room to start on a huge page
    void* mapping =
        mmap(nullptr, static_cast<size_t>(mapped_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    mapping_ = mapping;
    data_ = static_cast<uint8_t*>(mapping);
    data_ += -reinterpret_cast<uintptr_t>(mapping) & static_cast<uintptr_t>(kHugePage - 1);
#if defined(MADV_HUGEPAGE)
    madvise(mapping, static_cast<size_t>(mapped_), MADV_HUGEPAGE);
#endif
    return;
  }
#endif
  const auto size = static_cast<size_t>(round_up(bytes > 0 ? bytes : 1, kAlign));
  data_ = static_cast<uint8_t*>(std::aligned_alloc(kAlign, size));
  if (!data_) throw std::bad_alloc();
  std::memset(data_, 0, size);
}

Memory::~Memory() {
#if defined(__unix__) || defined(__APPLE__)
  if (mapping_) {
    munmap(mapping_, static_cast<size_t>(mapped_));
    return;
  }
#endif
  std::free(data_);
}

}  // namespace offramp
