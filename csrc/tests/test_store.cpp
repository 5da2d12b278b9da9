// The store: places, rounding, copies.
#include <limits>
#include <new>
#include <set>
#include <stdexcept>
#include <vector>

#include "store.h"
#include "testing.h"

using namespace offramp;

namespace {

StoreShape random_shape(Random& random) {
  StoreShape shape;
  shape.layers = random.between(1, 3);
  shape.boundaries = random.between(1, 3);
  shape.kv_heads = random.between(1, 3);
  shape.head_dim = 2 * random.between(1, 70);
  shape.hidden = random.between(1, 50);
  shape.block_size = random.between(1, 33);
  shape.num_blocks = random.between(1, 9);
  shape.half = random.chance(2);
  return shape;
}

// What a slot holds, kept beside the store.
struct Slot {
  std::vector<float> k, v, hidden;
};
using Mirror = std::vector<Slot>;  // [layers or boundaries, the more][slots]

float rounded(float x, bool half) {
  if (!half) return x;
  uint16_t narrow;
  kernels().to_half(&x, 1, &narrow);
  kernels().from_half(&narrow, 1, &x);
  return x;
}

Mirror fill(Random& random, Store& store) {
  const StoreShape& s = store.shape();
  Mirror mirror(static_cast<size_t>(std::max(s.layers, s.boundaries) * store.num_slots()));
  for (int64_t i = 0; i < static_cast<int64_t>(mirror.size()); ++i) {
    Slot& slot = mirror[i];
    const int64_t level = i / store.num_slots(), place = i % store.num_slots();
    for (int64_t j = 0; j < s.kv_heads * s.head_dim; ++j) {
      slot.k.push_back(rounded(random.normal(), s.half));
      slot.v.push_back(rounded(random.normal(), s.half));
    }
    for (int64_t j = 0; j < s.hidden; ++j) slot.hidden.push_back(random.normal());
    if (level < s.layers) store.write(level, place, slot.k.data(), slot.v.data());
    if (level < s.boundaries) std::copy(slot.hidden.begin(), slot.hidden.end(), store.hidden(level + 1, place));
  }
  return mirror;
}

void check_equal(const Store& store, const Mirror& mirror) {
  const StoreShape& s = store.shape();
  const int64_t width = s.kv_heads * s.head_dim;
  std::vector<float> k(static_cast<size_t>(width)), v(k);
  for (int64_t i = 0; i < static_cast<int64_t>(mirror.size()); ++i) {
    const int64_t level = i / store.num_slots(), place = i % store.num_slots();
    if (level < s.layers) {
      store.read(level, place, k.data(), v.data());
      CHECK(same_bits(k.data(), mirror[i].k.data(), width) && same_bits(v.data(), mirror[i].v.data(), width));
    }
    if (level < s.boundaries) CHECK(same_bits(store.hidden(level + 1, place), mirror[i].hidden.data(), s.hidden));
  }
}

void copies(Random& random, Store& store, Mirror mirror) {
  const StoreShape& s = store.shape();
  std::vector<std::pair<int32_t, int32_t>> pairs;
  std::set<int32_t> targets;
  for (int64_t i = random.below(s.num_blocks + 1); i > 0; --i) {
    const auto target = static_cast<int32_t>(random.below(s.num_blocks));
    if (targets.insert(target).second) pairs.emplace_back(static_cast<int32_t>(random.below(s.num_blocks)), target);
  }
  const Mirror before = mirror;
  for (size_t level = 0; level * store.num_slots() < mirror.size(); ++level) {
    for (const auto& [source, target] : pairs) {
      for (int64_t place = 0; place < s.block_size; ++place) {
        const int64_t base = static_cast<int64_t>(level) * store.num_slots();
        mirror[base + target * s.block_size + place] = before[base + source * s.block_size + place];
      }
    }
  }
  store.copy_blocks(pairs);
  check_equal(store, mirror);

  // A block that does not exist: nothing has been written.
  for (const int64_t missing : {int64_t{-1}, s.num_blocks}) {
    bool refused = false;
    try {
      store.copy_blocks({{0, static_cast<int32_t>(s.num_blocks - 1)}, {static_cast<int32_t>(missing), 0}});
    } catch (const std::out_of_range&) {
      refused = true;
    }
    CHECK(refused);
    check_equal(store, mirror);
  }
}

void too_large() {
  StoreShape shape;
  shape.layers = shape.boundaries = shape.kv_heads = shape.head_dim = shape.hidden = 1 << 20;
  shape.block_size = shape.num_blocks = std::numeric_limits<int32_t>::max();
  bool refused = false;
  try {
    Store store(shape);
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  CHECK(refused);
}

}  // namespace

int main() {
  Random random(2);
  for (int i = 0; i < 60; ++i) {
    Store store(random_shape(random));
    const StoreShape& s = store.shape();
    CHECK(reinterpret_cast<uintptr_t>(store.keys(0)) % 64 == 0 &&
          reinterpret_cast<uintptr_t>(store.values(s.layers - 1)) % 64 == 0);
    for (int64_t j = 0; j < s.hidden; ++j) CHECK(store.hidden(s.boundaries, store.num_slots() - 1)[j] == 0);
    Mirror mirror = fill(random, store);
    check_equal(store, mirror);
    copies(random, store, std::move(mirror));
  }
  too_large();
}
