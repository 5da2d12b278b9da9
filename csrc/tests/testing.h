// What test programs share.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "kernels.h"

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                        \
    }                                                                      \
  } while (false)

// Random numbers that are the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : bits_(seed) {}

  int64_t below(int64_t n) { return static_cast<int64_t>(bits_() % static_cast<uint64_t>(n)); }
  int64_t between(int64_t first, int64_t last) { return first + below(last - first + 1); }
  bool chance(int64_t one_in) { return below(one_in) == 0; }
  template <typename T>
  const T& one_of(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<int64_t>(values.size()))];
  }

  // About normal: the sum of four even ones.
  float normal() {
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<float>(bits_() >> 40) * 0x1p-24f - 0.5f;
    return sum * 1.7f;
  }

 private:
  std::mt19937_64 bits_;
};

// Equal bit for bit, except that all NaNs are one.
inline bool same_bits(const float* a, const float* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (std::memcmp(a + i, b + i, sizeof(float)) != 0 && (a[i] == a[i] || b[i] == b[i])) return false;
  }
  return true;
}

// Calls `test(name)` with every instruction set of this machine in use.
template <typename Test>
void for_each_isa(Test&& test) {
  const offramp::Kernels* const* tables = nullptr;
  const int count = offramp::supported_kernels(&tables);
  for (int i = 0; i < count; ++i) {
    CHECK(offramp::choose_kernels(tables[i]->name));
    test(tables[i]->name);
  }
  CHECK(offramp::choose_kernels(tables[0]->name));
}
