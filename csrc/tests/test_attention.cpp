// Attention against plain loops in double, and bit for bit against itself: on every instruction set, alone or in any
// company, with any block size. Slots that no query sees hold NaNs.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "operand.h"
#include "relative.h"
#include "store.h"
#include "testing.h"

using namespace offramp;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A sequence of one layer, spread over the blocks of a store.
struct Sequence {
  int64_t kv_heads, head_dim, length;
  std::vector<float> k, v;  // [length][kv_heads][head_dim]

  Sequence(Random& random, int64_t kv_heads, int64_t head_dim, int64_t length)
      : kv_heads(kv_heads), head_dim(head_dim), length(length) {
    for (int64_t i = 0; i < length * kv_heads * head_dim; ++i) {
      k.push_back(2 * random.normal());
      v.push_back(random.normal());
    }
  }
};

struct Paged {
  Store store;
  std::vector<int32_t> blocks;

  Paged(Random& random, const Sequence& s, int64_t block_size, bool half)
      : store(shape(s, block_size, half)), blocks(static_cast<size_t>(ceil_div(s.length, block_size))) {
    // Every slot is poisoned, then those of the sequence are written.
    const std::vector<float> poison(static_cast<size_t>(s.kv_heads * s.head_dim), kNaN);
    for (int64_t slot = 0; slot < store.num_slots(); ++slot) store.write(0, slot, poison.data(), poison.data());
    std::vector<int32_t> order(static_cast<size_t>(store.shape().num_blocks));
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = static_cast<int32_t>(i);
      std::swap(order[i], order[random.below(static_cast<int64_t>(i) + 1)]);
    }
    std::copy_n(order.begin(), blocks.size(), blocks.begin());
    const int64_t width = s.kv_heads * s.head_dim;
    for (int64_t p = 0; p < s.length; ++p) store.write(0, slot(p), s.k.data() + p * width, s.v.data() + p * width);
  }

  int64_t slot(int64_t position) const {
    const int64_t size = store.shape().block_size;
    return blocks[position / size] * size + position % size;
  }

  static StoreShape shape(const Sequence& s, int64_t block_size, bool half) {
    StoreShape shape;
    shape.layers = 1;
    shape.boundaries = 1;
    shape.kv_heads = s.kv_heads;
    shape.head_dim = s.head_dim;
    shape.hidden = 1;
    shape.block_size = block_size;
    shape.num_blocks = 2 * ceil_div(s.length, block_size);
    shape.half = half;
    return shape;
  }
};

struct Queries {
  int64_t group, window;
  int64_t length = 0;  // above 0: all of it is seen
  int64_t reach = 0;
  std::vector<float> biases;  // [group][2 reach + 1], or none
  std::vector<int64_t> positions;
  std::vector<float> q;  // [rows][group][head_dim]
};

// Some rows of the queries at one head, on the instruction set in use.
std::vector<float> attend(const Paged& paged, const Queries& queries, int64_t head, int64_t first, int64_t rows) {
  const StoreShape& shape = paged.store.shape();
  Buffer<float> scratch;
  const int64_t width = queries.group * shape.head_dim;
  std::vector<float> out(static_cast<size_t>(rows * width), kNaN);
  const RelativeBias bias(queries.biases, queries.group);
  Attend task;
  task.half = shape.half;
  task.length = queries.length;
  task.bias = bias.head(0);
  task.reach = bias.reach();
  task.head_dim = shape.head_dim;
  task.block_size = shape.block_size;
  task.rows = rows;
  task.group = queries.group;
  task.positions = queries.positions.data() + first;
  task.window = queries.window;
  task.q = queries.q.data() + first * width;
  task.q_stride = width;
  task.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  task.blocks = paged.blocks.data();
  task.k = paged.store.keys(0) + head * paged.store.head_bytes();
  task.v = paged.store.values(0) + head * paged.store.head_bytes();
  task.block_stride = paged.store.block_bytes();
  task.out = out.data();
  task.out_stride = width;
  task.scratch = scratch.reserve(attend_scratch(rows, queries.group, shape.head_dim));
  kernels().attend(task);
  return out;
}

// In double, from K and V as the store holds them.
std::vector<double> attend_plainly(const Paged& paged, const Queries& queries, int64_t head) {
  const StoreShape& shape = paged.store.shape();
  const int64_t width = shape.head_dim, all = shape.kv_heads * width;
  std::vector<double> out;
  std::vector<float> k(static_cast<size_t>(all)), v(k);
  for (size_t row = 0; row < queries.positions.size(); ++row) {
    const int64_t own = queries.positions[row], last = queries.length > 0 ? queries.length - 1 : own;
    const int64_t first = queries.window > 0 ? std::max<int64_t>(0, last - queries.window + 1) : 0;
    for (int64_t g = 0; g < queries.group; ++g) {
      const float* q = queries.q.data() + (static_cast<int64_t>(row) * queries.group + g) * width;
      double total = 0;
      std::vector<double> sums(static_cast<size_t>(width));
      for (int64_t p = first; p <= last; ++p) {
        paged.store.read(0, paged.slot(p), k.data(), v.data());
        double score = 0;
        for (int64_t c = 0; c < width; ++c) score += static_cast<double>(q[c]) * k[head * width + c];
        score /= std::sqrt(static_cast<double>(width));
        if (!queries.biases.empty()) {
          const int64_t offset = std::min(queries.reach, std::max(-queries.reach, p - own));
          score += queries.biases[g * (2 * queries.reach + 1) + queries.reach + offset];
        }
        const double weight = std::exp(score);
        total += weight;
        for (int64_t c = 0; c < width; ++c) sums[c] += weight * v[head * width + c];
      }
      for (const double sum : sums) out.push_back(sum / total);
    }
  }
  return out;
}

Queries random_queries(Random& random, const Sequence& s) {
  Queries queries;
  queries.group = random.between(1, 9);
  queries.window = random.chance(2) ? 0 : random.between(1, s.length + 3);
  if (queries.window == 0 && random.chance(2)) queries.length = random.between(1, s.length);
  if (random.chance(2)) {
    queries.reach = random.one_of<int64_t>({0, 1, 15, 16, 40, 128, 400});
    for (int64_t i = 0; i < queries.group * (2 * queries.reach + 1); ++i) queries.biases.push_back(2 * random.normal());
  }
  const bool dense = random.chance(2);
  const int64_t rows = random.between(1, 40);
  for (int64_t p = random.below(s.length); p < s.length && static_cast<int64_t>(queries.positions.size()) < rows;) {
    queries.positions.push_back(p);
    p += dense ? 1 : random.between(1, 90);
  }
  const auto count = static_cast<int64_t>(queries.positions.size()) * queries.group * s.head_dim;
  for (int64_t i = 0; i < count; ++i) queries.q.push_back(random.normal());
  return queries;
}

void check_case(Random& random, const Sequence& s, bool half) {
  const Queries queries = random_queries(random, s);
  const auto rows = static_cast<int64_t>(queries.positions.size());
  const int64_t head = random.below(s.kv_heads), width = queries.group * s.head_dim;
  const Paged paged(random, s, 16 * random.between(1, 3), half);
  const Paged other(random, s, random.between(1, 40), half);

  CHECK(choose_kernels("portable"));
  const std::vector<float> expected = attend(paged, queries, head, 0, rows);
  const std::vector<double> plain = attend_plainly(paged, queries, head);
  for (size_t i = 0; i < plain.size(); ++i) CHECK(std::abs(expected[i] - plain[i]) < 1e-5 * (1 + std::abs(plain[i])));

  for_each_isa([&](const char*) {
    CHECK(same_bits(expected.data(), attend(paged, queries, head, 0, rows).data(), rows * width));
    CHECK(same_bits(expected.data(), attend(other, queries, head, 0, rows).data(), rows * width));
    for (int64_t row = 0; row < rows;) {  // in pieces
      const int64_t count = std::min(rows - row, random.between(1, 7));
      CHECK(same_bits(expected.data() + row * width, attend(paged, queries, head, row, count).data(), count * width));
      row += count;
    }
  });
}

// A position that is not a number spoils the queries that see it, and no others.
void check_isolation(Random& random, const Sequence& s, bool half, int64_t block_size) {
  Queries queries;
  queries.group = 3;
  queries.window = 0;
  for (int64_t p = 0; p < s.length; ++p) queries.positions.push_back(p);
  for (int64_t i = 0; i < s.length * 3 * s.head_dim; ++i) queries.q.push_back(random.normal());
  Paged paged(random, s, block_size, half);
  const int64_t width = 3 * s.head_dim, spoiled = s.length / 2;
  for_each_isa([&](const char*) {
    const int64_t all = s.kv_heads * s.head_dim;
    paged.store.write(0, paged.slot(spoiled), s.k.data() + spoiled * all, s.v.data() + spoiled * all);
    const std::vector<float> before = attend(paged, queries, 0, 0, s.length);
    for (const float x : before) CHECK(std::isfinite(x));
    const std::vector<float> poison(static_cast<size_t>(s.kv_heads * s.head_dim), kNaN);
    paged.store.write(0, paged.slot(spoiled), poison.data(), poison.data());
    const std::vector<float> after = attend(paged, queries, 0, 0, s.length);
    CHECK(same_bits(before.data(), after.data(), spoiled * width));
    for (int64_t i = spoiled * width; i < s.length * width; ++i) CHECK(std::isnan(after[i]));
  });
}

}  // namespace

int main() {
  Random random(1);
  for (int i = 0; i < 120; ++i) {
    const int64_t head_dim = 2 * random.one_of<int64_t>({1, 2, 3, 4, 8, 16, 24, 32, 40, 48, 64});
    const Sequence s(random, random.between(1, 3), head_dim, random.between(1, 300));
    check_case(random, s, random.chance(2));
  }
  for (const int64_t block_size : {16, 5}) {
    for (const bool half : {true, false}) check_isolation(random, Sequence(random, 2, 64, 150), half, block_size);
  }
}
