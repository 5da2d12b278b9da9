#include "measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "kernels.h"
#include "memory.h"

namespace offramp {

namespace {

constexpr int kRepeats = 9;                  // the best counts: others only disturb
constexpr int64_t kReadBytes = 192ll << 20;  // several times the last level of cache
constexpr int64_t kPeakSteps = 400'000;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// The best time of `work(worker)` on all threads.
template <typename Work>
double best_time(Pool& pool, Work&& work) {
  double best = 1e30;
  for (int i = 0; i < kRepeats; ++i) {
    pool.run([&](Worker& worker) {
      worker.barrier();  // all are awake
      const double start = seconds();
      work(worker);
      worker.barrier();
      if (worker.index() == 0) best = std::min(best, seconds() - start);
    });
  }
  return best;
}

double measure_peak(Pool& pool, int64_t (*peak)(int64_t)) {
  std::atomic<int64_t> products{0};
  const double time = best_time(pool, [&](Worker&) { products.store(peak(kPeakSteps), std::memory_order_relaxed); });
  return 2.0 * static_cast<double>(products.load()) * pool.size() / time * 1e-9;
}

}  // namespace

double measure_read(Pool& pool) {
  const Memory memory(kReadBytes);
  std::memset(memory.data(), 1, kReadBytes);  // pages that were never written are all the same one
  const uint64_t* words = reinterpret_cast<const uint64_t*>(memory.data());
  std::atomic<uint64_t> sink{0};
  const double time = best_time(pool, [&](Worker& worker) {
    const int64_t all = kReadBytes / 64;
    const int64_t begin = all * worker.index() / worker.count(), end = all * (worker.index() + 1) / worker.count();
    uint64_t sums[8] = {};
    for (int64_t line = begin; line < end; ++line)
      for (int i = 0; i < 8; ++i) sums[i] += words[line * 8 + i];
    uint64_t total = 0;
    for (const uint64_t sum : sums) total += sum;
    sink.fetch_add(total, std::memory_order_relaxed);
  });
  return static_cast<double>(kReadBytes) / time * 1e-9;
}

double measure_float(Pool& pool) { return measure_peak(pool, kernels().peak_float); }

double measure_integer(Pool& pool) { return measure_peak(pool, kernels().peak_integer); }

}  // namespace offramp
