// The matrix products of one token of SmolLM2-135M (30 layers and the LM head), for several row counts, beside what the
// machine allows. Usage: bench_kernels [type] [threads] [seconds per row count]
//
// The set is larger than the caches, as it is in a model. The best and the median of several rounds are printed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "measure.h"
#include "memory.h"
#include "pool.h"

using namespace offramp;

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Shape {
  int64_t n, k;
};

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (int layer = 0; layer < 30; ++layer) {
    all.push_back({960, 576});   // q, k, v
    all.push_back({576, 576});   // out
    all.push_back({3072, 576});  // gate, up
    all.push_back({576, 1536});  // down
  }
  all.push_back({49152, 576});  // LM head
  return all;
}

constexpr int64_t kLongest = 1536, kWidest = 49152;

}  // namespace

int main(int argc, char** argv) {
  const char* names[] = {"f32", "f16", "bf16", "i8", "i4", "i4m"};
  int type_index = 3;
  for (int i = 0; argc > 1 && i < 6; ++i)
    if (std::strcmp(argv[1], names[i]) == 0) type_index = i;
  const WeightType type = static_cast<WeightType>(type_index);
  Pool pool(argc > 2 ? std::atoi(argv[2]) : 2);
  const double limit = argc > 3 ? std::atof(argv[3]) : 0.7;

  int64_t bytes = 0, weights = 0;
  for (const Shape& s : shapes()) {
    bytes += matrix_bytes(type, s.n, s.k);
    weights += s.n * s.k;
  }
  const Memory memory(bytes);
  uint8_t* const data = memory.data();
  for (int64_t i = 0; i < bytes; ++i) data[i] = static_cast<uint8_t>(i * 2654435761u >> 13 & 0x2f);
  std::vector<Matrix> matrices;
  const uint8_t* next = data;
  for (const Shape& s : shapes()) {
    matrices.push_back({type, s.n, s.k, next});
    next += matrix_bytes(type, s.n, s.k);
  }

  const double read = measure_read(pool);
  const double peak = is_integer(type) ? measure_integer(pool) : measure_float(pool);
  std::printf("%s %s, %d threads, %.1f MB, %.1f M weights; ceilings %.1f GB/s, %.0f GOP/s\n", kernels().name,
              names[type_index], pool.size(), 1e-6 * bytes, 1e-6 * weights, read, peak);

  double first = 0;
  for (const int64_t rows : {1, 2, 3, 4, 6, 8, 12, 16, 32, 64}) {
    std::vector<float> x(rows * kLongest), scale(rows * kLongest / kGroup), out(rows * kWidest);
    std::vector<int16_t> q(rows * kLongest);
    std::vector<int32_t> sum(rows * kLongest / kGroup);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 40503 % 1000) * 1e-3f - 0.5f;
    std::vector<double> times;
    for (const double end = seconds() + limit; seconds() < end || times.size() < 5;) {
      const double start = seconds();
      pool.run([&](Worker& worker) {
        for (const Matrix& w : matrices) {
          const int64_t groups = num_groups(w.k);
          if (is_integer(type) && worker.index() == 0)
            for (int64_t r = 0; r < rows; ++r)
              kernels().quantize(&x[r * kLongest], w.k, &q[r * groups * kGroup], &scale[r], &sum[r * groups]);
          worker.barrier();
          const Rows input{rows, x.data(), kLongest, q.data(), scale.data(), sum.data()};
          worker.spread(w.panels(), [&](int64_t begin, int64_t last) {
            kernels().matmul(w, input, begin, last, out.data() + begin * kPanel, kWidest, false);
          });
        }
      });
      times.push_back(seconds() - start);
    }
    std::sort(times.begin(), times.end());
    const double best = times.front(), median = times[times.size() / 2];
    if (first == 0) first = best;
    const double rate = 2e-9 * weights * rows / best, speed = 1e-9 * bytes / best;
    std::printf("%3d rows: %7.2f ms (median %7.2f), %.2fx of 1 row; %5.1f GB/s (%2.0f%%), %4.0f GOP/s (%2.0f%%)\n",
                static_cast<int>(rows), 1e3 * best, 1e3 * median, best / first, speed, 100 * speed / read, rate,
                100 * rate / peak);
  }
}
