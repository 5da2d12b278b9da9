// Which instruction sets this machine can run, and which one is in use.

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace offramp {

extern const Kernels portable_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#endif

namespace {

struct Supported {
  const Kernels* tables[3];
  int count = 0;
};

#if defined(__x86_64__)
constexpr bool bit(uint32_t bits, int index) { return bits >> index & 1; }

// The register states that the operating system saves: what a processor can do is of no use without them.
uint64_t saved_states() {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

void add_x86(Supported& found) {
  uint32_t a, b, c, d, b7, c7;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return;
  const bool fma = bit(c, 12), xgetbv = bit(c, 27), avx = bit(c, 28), f16c = bit(c, 29);
  if (!xgetbv || !avx || !fma || !f16c) return;
  if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d)) return;
  const uint64_t states = saved_states();
  const bool ymm = (states & 0x06) == 0x06, zmm = (states & 0xe6) == 0xe6;
  const bool avx2 = bit(b7, 5);
  const bool f = bit(b7, 16), dq = bit(b7, 17), bw = bit(b7, 30), vl = bit(b7, 31), vnni = bit(c7, 11);
  if (avx2 && zmm && f && dq && bw && vl && vnni) found.tables[found.count++] = &avx512_kernels;
  if (avx2 && ymm) found.tables[found.count++] = &avx2_kernels;
}
#endif

Supported detect() {
  Supported found;
#if defined(__x86_64__)
  add_x86(found);
#endif
  found.tables[found.count++] = &portable_kernels;
  return found;
}

const Supported& supported() {
  static const Supported found = detect();
  return found;
}

std::atomic<const Kernels*> current{nullptr};

const Kernels* find(const char* name) {
  const Supported& found = supported();
  for (int i = 0; i < found.count; ++i)
    if (std::strcmp(found.tables[i]->name, name) == 0) return found.tables[i];
  return nullptr;
}

const Kernels& choose_first() {
  const char* name = std::getenv("OFFRAMP_ISA");
  const Kernels* table = name && *name ? find(name) : supported().tables[0];
  if (!table) {
    std::string message = "OFFRAMP_ISA is `" + std::string(name) + "`; this machine runs";
    for (int i = 0; i < supported().count; ++i)
      message += (i ? ", `" : " `") + std::string(supported().tables[i]->name) + "`";
    throw std::invalid_argument(message);
  }
  current.store(table);
  return *table;
}

}  // namespace

int supported_kernels(const Kernels* const** tables) {
  if (tables) *tables = supported().tables;
  return supported().count;
}

const Kernels& kernels() {
  const Kernels* table = current.load(std::memory_order_relaxed);
  return table ? *table : choose_first();
}

bool choose_kernels(const char* name) {
  const Kernels* table = find(name);
  if (table) current.store(table);
  return table != nullptr;
}

}  // namespace offramp
