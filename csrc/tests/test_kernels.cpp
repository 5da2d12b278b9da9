// Every kernel of every instruction set against the portable one, bit for bit, and the portable one against plain code.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.h"
#include "numbers.h"
#include "pack.h"
#include "testing.h"

using namespace offramp;

namespace {

constexpr WeightType kTypes[] = {WeightType::f32, WeightType::f16, WeightType::bf16,
                                 WeightType::i8,  WeightType::i4,  WeightType::i4m};

struct Inputs {
  int64_t count, k;
  std::vector<float> x;
  std::vector<int16_t> q;
  std::vector<float> scale;
  std::vector<int32_t> sum;

  Inputs(Random& random, int64_t count, int64_t k) : count(count), k(k), x(count * k) {
    for (float& value : x) value = random.normal();
    for (int64_t i = 0; i < k; i += 97) x[i] = 0;
    quantize();
  }

  void quantize() {
    const int64_t groups = num_groups(k);
    q.assign(count * groups * kGroup, -1);
    scale.assign(count, -1);
    sum.assign(count * groups, -1);
    for (int64_t r = 0; r < count; ++r)
      kernels().quantize(x.data() + r * k, k, q.data() + r * groups * kGroup, scale.data() + r,
                         sum.data() + r * groups);
  }

  Rows rows(int64_t first, int64_t n) const {
    const int64_t groups = num_groups(k);
    Rows rows;
    rows.count = n;
    rows.x = x.data() + first * k;
    rows.x_stride = k;
    rows.q = q.data() + first * groups * kGroup;
    rows.scale = scale.data() + first;
    rows.sum = sum.data() + first * groups;
    return rows;
  }
};

struct Packed {
  std::vector<uint8_t> bytes;
  Matrix matrix;

  Packed(Random& random, WeightType type, int64_t n, int64_t k) : bytes(matrix_bytes(type, n, k)) {
    std::vector<float> weights(n * k);
    for (float& value : weights) value = random.normal() * 0.1f;
    std::fill(weights.begin(), weights.begin() + std::min<int64_t>(k, 40), 0.0f);
    pack_floats(type, weights.data(), n, k, {bytes.data(), 0, 1});
    matrix = {type, n, k, bytes.data()};
  }
};

// Output n of a row as kernels.h defines it, in plain code.
float plain_output(const Matrix& w, const Inputs& in, int64_t row, int64_t n) {
  std::vector<float> weights(w.k);
  unpack_row(w, n, weights.data());
  float acc = 0;
  if (!is_integer(w.type)) {
    for (int64_t i = 0; i < w.k; ++i) acc = std::fma(weights[i], in.x[row * w.k + i], acc);
    return acc;
  }
  const int64_t groups = num_groups(w.k);
  const uint8_t* panel = w.panel(n / kPanel);
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(panel + panel_weight_bytes(w.type, w.k));
  for (int64_t g = 0; g < groups; ++g) {
    const float scale = half_to_float(scales[g * kPanel + n % kPanel]);
    const float minimum = w.type == WeightType::i4m ? half_to_float(scales[(groups + g) * kPanel + n % kPanel]) : 0;
    int64_t dot = 0;
    for (int64_t i = 0; i < kGroup; ++i) {
      const int64_t p = i / 2 % (w.type == WeightType::i8 ? 16 : 8), loads = w.type == WeightType::i8 ? 16 : 8;
      const uint8_t byte = panel[(g * loads + p) * 32 + n % kPanel * 2 + i % 2];
      const int code = w.type == WeightType::i8 ? static_cast<int8_t>(byte)
                                                : (i < 16 ? byte & 15 : byte >> 4) - (w.type == WeightType::i4 ? 8 : 0);
      dot += code * in.q[(row * groups + g) * kGroup + i];
    }
    acc = std::fma(static_cast<float>(dot), scale, acc);
    if (w.type == WeightType::i4m) acc = std::fma(minimum, static_cast<float>(in.sum[row * groups + g]), acc);
  }
  return acc * in.scale[row];
}

void test_matmul() {
  Random random(1);
  for (const WeightType type : kTypes) {
    for (const int64_t k : {1, 2, 31, 33, 96, 576}) {
      for (const int64_t n : {1, 15, 17, 48, 112}) {
        choose_kernels("portable");
        const Packed w(random, type, n, k);
        const int64_t count = k > 100 ? 20 : 64, stride = num_panels(n) * kPanel;
        const Inputs in(random, count, k);
        std::vector<float> expected(count * stride);
        for (int64_t r = 0; r < count; ++r)
          kernels().matmul(w.matrix, in.rows(r, 1), 0, w.matrix.panels(), expected.data() + r * stride, stride, false);
        for (int64_t c = 0; c < n; c += 7)
          CHECK(plain_output(w.matrix, in, count - 1, c) == expected[(count - 1) * stride + c]);
        for_each_isa([&](const char*) {
          for (int64_t rows = 1; rows <= count; ++rows) {
            std::vector<float> out(rows * stride, 7.0f);
            kernels().matmul(w.matrix, in.rows(0, rows), 0, w.matrix.panels(), out.data(), stride, false);
            CHECK(same_bits(out.data(), expected.data(), rows * stride));
          }
          // A part of the panels, added to what is there; the rest is left alone.
          const int64_t begin = w.matrix.panels() / 3, end = w.matrix.panels();
          std::vector<float> out(3 * stride, 0.5f);
          kernels().matmul(w.matrix, in.rows(0, std::min<int64_t>(3, count)), begin, end, out.data(), stride, true);
          for (int64_t r = 0; r < 3; ++r)
            for (int64_t c = 0; c < stride; ++c)
              CHECK(out[r * stride + c] ==
                    (c < (end - begin) * kPanel ? expected[r * stride + begin * kPanel + c] + 0.5f : 0.5f));
        });
      }
    }
  }
}

// A row with an infinity or a NaN has no finite output, and no other row changes.
void test_row_that_is_not_finite() {
  Random random(2);
  for (const WeightType type : kTypes) {
    const Packed w(random, type, 40, 70);
    Inputs in(random, 9, 70);
    const int64_t stride = 48;
    for_each_isa([&](const char*) {
      Inputs bad = in;
      bad.x[4 * 70 + 69] = std::numeric_limits<float>::quiet_NaN();
      bad.x[6 * 70 + 3] = -std::numeric_limits<float>::infinity();
      bad.quantize();
      std::vector<float> good_out(9 * stride), bad_out(9 * stride);
      kernels().matmul(w.matrix, in.rows(0, 9), 0, 3, good_out.data(), stride, false);
      kernels().matmul(w.matrix, bad.rows(0, 9), 0, 3, bad_out.data(), stride, false);
      for (int64_t r = 0; r < 9; ++r) {
        if (r == 4 || r == 6) {
          for (int64_t c = 1; c < 40; ++c) CHECK(!std::isfinite(bad_out[r * stride + c]));
        } else {
          CHECK(same_bits(good_out.data() + r * stride, bad_out.data() + r * stride, stride));
        }
      }
    });
  }
}

// The twin of kernels().quantize.
void test_quantize() {
  Random random(3);
  const float inf = std::numeric_limits<float>::infinity();
  for (const int64_t k : {1, 16, 17, 31, 32, 33, 576}) {
    for (const float size : {1.0f, 1e-30f, 1e-31f, 1e-42f, 1e30f, 0.0f, inf}) {
      std::vector<float> x(k);
      for (float& value : x) value = random.normal() * (size == inf ? 1 : size);
      if (size == inf) x[k / 2] = -inf;
      const int64_t groups = num_groups(k);
      for_each_isa([&](const char*) {
        std::vector<int16_t> q(groups * kGroup, 99);
        float scale = 9;
        std::vector<int32_t> sum(groups, 9);
        kernels().quantize(x.data(), k, q.data(), &scale, sum.data());
        float most = 0;
        for (const float value : x) most = std::fmax(most, std::fabs(value));
        const bool zero = most == inf || most < kQuantizeFloor;
        if (most == inf)
          CHECK(std::isnan(scale));
        else
          CHECK(scale == (zero ? 0.0f : most / 32767.0f));
        for (int64_t g = 0; g < groups; ++g) {
          int32_t total = 0;
          for (int64_t i = 0; i < kGroup; ++i) {
            const int64_t at = g * kGroup + i;
            const float expected = zero || at >= k ? 0.0f : std::nearbyint(x[at] * (32767.0f / most));
            CHECK(q[at] == static_cast<int16_t>(expected));
            total += q[at];
          }
          CHECK(sum[g] == total);
        }
      });
    }
  }
}

// Every elementwise kernel at awkward lengths: all sets alike, and nothing beyond the end is written.
void test_elementwise() {
  Random random(4);
  const Kernels* const* tables = nullptr;
  const int count = supported_kernels(&tables);
  const Kernels& plain = *tables[count - 1];
  for (const int64_t n : {2, 14, 16, 18, 30, 48, 64, 576}) {
    std::vector<float> a(n), b(n);
    for (float& value : a) value = random.normal() * 20;
    for (float& value : b) value = random.normal();
    for (int t = 0; t < count; ++t) {
      const Kernels& set = *tables[t];
      const auto same = [&](auto&& run) {
        std::vector<float> mine(a), theirs(a);
        mine.push_back(-5);
        theirs.push_back(-5);
        run(set, mine.data());
        run(plain, theirs.data());
        CHECK(same_bits(mine.data(), theirs.data(), n + 1));
        CHECK(mine[n] == -5);
        return mine;
      };
      const auto norm = same([&](const Kernels& k, float* y) { k.rms_norm(a.data(), b.data(), 1e-5f, n, y); });
      same([&](const Kernels& k, float* y) { k.rms_norm(a.data(), nullptr, 1e-5f, n, y); });
      const auto gated = same([&](const Kernels& k, float* y) { k.silu_mul(a.data(), b.data(), n, y); });
      const auto gelu = same([&](const Kernels& k, float* y) { k.gelu_mul(a.data(), b.data(), n, y); });
      const auto kept = same([&](const Kernels& k, float* y) { k.relu(a.data(), n, y); });
      const auto added = same([&](const Kernels& k, float* x) { k.add(x, b.data(), n); });
      const auto turned = same([&](const Kernels& k, float* x) { k.rotate(x, b.data(), b.data() + n / 2, n / 2); });
      double squares = 0;
      for (const float value : a) squares += static_cast<double>(value) * value;
      for (int64_t i = 0; i < n; ++i) {
        CHECK(std::fabs(norm[i] - a[i] / std::sqrt(squares / n + 1e-5) * b[i]) < 1e-5);
        CHECK(std::fabs(gated[i] - a[i] / (1 + std::exp(-static_cast<double>(a[i]))) * b[i]) <
              1e-5 * (1 + std::fabs(a[i])));
        CHECK(added[i] == a[i] + b[i]);
        const int64_t j = i % (n / 2);
        const double c = b[j], s = b[n / 2 + j];
        const double x = i < n / 2 ? a[j] * c - a[n / 2 + j] * s : a[n / 2 + j] * c + a[j] * s;
        CHECK(std::fabs(turned[i] - x) < 1e-4);
      }
    }
  }
}

void test_halves() {
  for_each_isa([](const char*) {
    for (uint32_t bits = 0; bits < 65536; bits += 16) {
      uint16_t half[19], back[19];
      for (uint32_t i = 0; i < 19; ++i) half[i] = static_cast<uint16_t>(std::min(bits + i, 65535u));
      float wide[19];
      kernels().from_half(half, 19, wide);
      kernels().to_half(wide, 19, back);
      for (int i = 0; i < 19; ++i) {
        CHECK(float_bits(wide[i]) == float_bits(half_to_float(half[i])));
        CHECK(back[i] == half[i] || std::isnan(wide[i]));
      }
    }
    for (uint64_t bits = 0; bits < 1ull << 32; bits += 65521) {
      const float x = bits_float(static_cast<uint32_t>(bits));
      float all[17];
      std::fill(all, all + 17, x);
      uint16_t half[17];
      kernels().to_half(all, 17, half);
      CHECK(half[0] == half[16] && half[0] == float_to_half(x));
    }
  });
}

void test_choice() {
  CHECK(!choose_kernels("sse9"));
  const Kernels* const* tables = nullptr;
  const int count = supported_kernels(&tables);
  CHECK(count >= 1 && std::strcmp(tables[count - 1]->name, "portable") == 0);
}

}  // namespace

int main() {
  test_choice();
  test_halves();
  test_quantize();
  test_elementwise();
  test_matmul();
  test_row_that_is_not_finite();
  std::puts("kernels: ok");
}
