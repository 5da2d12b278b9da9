#include "store.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>

#include "kernels.h"
#include "weights.h"

namespace offramp {
namespace {

constexpr int64_t kPiece = 64;  // channels converted at once

// The product of sizes, unless memory cannot be that large.
int64_t product(std::initializer_list<int64_t> sizes) {
  int64_t total = 1;
  for (const int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(total, size, &total)) throw std::bad_alloc();
  }
  return total;
}

int64_t bytes_of(const StoreShape& s, int64_t layer_bytes) {
  int64_t bytes = product({2, s.layers, layer_bytes});
  const int64_t rows = s.boundaries + s.states;
  const int64_t hidden = product({rows, s.num_blocks, s.block_size, s.hidden, int64_t{sizeof(float)}});
  if (__builtin_add_overflow(bytes, hidden, &bytes)) throw std::bad_alloc();
  return bytes;
}

// K of one head and token is spread out: its channels are `stride` elements apart.
template <typename T>
void scatter(const T* from, int64_t count, T* to, int64_t stride) {
  for (int64_t i = 0; i < count; ++i) to[i * stride] = from[i];
}

}  // namespace

Store::Store(const StoreShape& shape)
    : shape_(shape),
      head_bytes_(product({shape.head_dim, shape.block_size, shape.half ? 2 : 4})),
      block_bytes_(product({shape.kv_heads, head_bytes_})),
      layer_bytes_(round_up(product({shape.num_blocks, block_bytes_}), kAlign)),
      memory_(bytes_of(shape, layer_bytes_)),
      hidden_(reinterpret_cast<float*>(memory_.data() + 2 * shape.layers * layer_bytes_)) {}

void Store::write(int64_t layer, int64_t slot, const float* k, const float* v) {
  for (int64_t head = 0; head < shape_.kv_heads; ++head) {
    write_head(layer, slot, head, k + head * shape_.head_dim, v + head * shape_.head_dim);
  }
}

void Store::write_head(int64_t layer, int64_t slot, int64_t head, const float* k, const float* v) {
  const int64_t size = shape_.block_size, width = shape_.head_dim, place = slot % size;
  const int64_t offset = slot / size * block_bytes_ + head * head_bytes_;
  uint8_t *keys_at = keys(layer) + offset, *values_at = values(layer) + offset;
  if (!shape_.half) {
    scatter(k, width, reinterpret_cast<float*>(keys_at) + place, size);
    std::memcpy(reinterpret_cast<float*>(values_at) + place * width, v, static_cast<size_t>(width) * sizeof(float));
    return;
  }
  uint16_t piece[kPiece];
  for (int64_t i = 0; i < width; i += kPiece) {
    const int64_t count = std::min(kPiece, width - i);
    kernels().to_half(k + i, count, piece);
    scatter(piece, count, reinterpret_cast<uint16_t*>(keys_at) + i * size + place, size);
  }
  kernels().to_half(v, width, reinterpret_cast<uint16_t*>(values_at) + place * width);
}

void Store::read(int64_t layer, int64_t slot, float* k, float* v) const {
  const int64_t size = shape_.block_size, width = shape_.head_dim, place = slot % size;
  for (int64_t head = 0; head < shape_.kv_heads; ++head) {
    const int64_t offset = slot / size * block_bytes_ + head * head_bytes_;
    const uint8_t *keys_at = keys(layer) + offset, *values_at = values(layer) + offset;
    for (int64_t i = 0; i < width; ++i, ++k, ++v) {
      const int64_t key = i * size + place, value = place * width + i;
      if (shape_.half) {
        kernels().from_half(reinterpret_cast<const uint16_t*>(keys_at) + key, 1, k);
        kernels().from_half(reinterpret_cast<const uint16_t*>(values_at) + value, 1, v);
      } else {
        *k = reinterpret_cast<const float*>(keys_at)[key];
        *v = reinterpret_cast<const float*>(values_at)[value];
      }
    }
  }
}

void Store::copy_blocks(const std::vector<std::pair<int32_t, int32_t>>& pairs) {
  for (const auto& [source, target] : pairs) {
    if (std::min(source, target) < 0 || std::max(source, target) >= shape_.num_blocks) {
      throw std::out_of_range("there is no block " +
                              std::to_string(source < 0 || source >= shape_.num_blocks ? source : target));
    }
  }
  // One array of blocks after the other; each is small enough to be gathered before it is put down.
  std::vector<uint8_t> gathered;
  const auto copy = [&](uint8_t* base, int64_t bytes) {
    const auto size = static_cast<size_t>(bytes);
    gathered.resize(pairs.size() * size);
    for (size_t i = 0; i < pairs.size(); ++i)
      std::memcpy(gathered.data() + i * size, base + pairs[i].first * bytes, size);
    for (size_t i = 0; i < pairs.size(); ++i)
      std::memcpy(base + pairs[i].second * bytes, gathered.data() + i * size, size);
  };
  for (int64_t layer = 0; layer < shape_.layers; ++layer) {
    copy(keys(layer), block_bytes_);
    copy(values(layer), block_bytes_);
  }
  const int64_t hidden_bytes = shape_.block_size * shape_.hidden * static_cast<int64_t>(sizeof(float));
  for (int64_t boundary = 1; boundary <= shape_.boundaries + shape_.states; ++boundary) {
    copy(reinterpret_cast<uint8_t*>(hidden(boundary, 0)), hidden_bytes);
  }
}

}  // namespace offramp
