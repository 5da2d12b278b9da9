// The paged store: K and V of every layer and the hidden states at every boundary, by slot.
//
// Position p of a sequence lies in block `blocks[p / block_size]` at place p % block_size; slot = block * block_size +
// place.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "memory.h"

namespace offramp {

struct StoreShape {
  int64_t layers = 0, boundaries = 0;  // boundaries: S + 1, numbered from 1
  bool states = false;                 // whether deep states are kept too
  int64_t kv_heads = 0, head_dim = 0, hidden = 0;
  int64_t block_size = 0, num_blocks = 0;
  bool half = true;  // K and V are f16, else f32
};

class Store {
 public:
  // Zero-filled, aligned to 64 bytes, in huge pages where the system grants them. Throws std::bad_alloc.
  explicit Store(const StoreShape& shape);

  const StoreShape& shape() const { return shape_; }
  int64_t num_slots() const { return shape_.num_blocks * shape_.block_size; }

  // One layer's K [blocks][kv_heads][head_dim][block_size] or V [blocks][kv_heads][block_size][head_dim].
  uint8_t* keys(int64_t layer) const { return memory_.data() + 2 * layer * layer_bytes_; }
  uint8_t* values(int64_t layer) const { return keys(layer) + layer_bytes_; }
  int64_t head_bytes() const { return head_bytes_; }    // from one head to the next
  int64_t block_bytes() const { return block_bytes_; }  // from one block to the next

  // The hidden state [hidden] at a boundary (1..S+1), or a deep state at S+2 if there are any.
  float* hidden(int64_t boundary, int64_t slot) const {
    return hidden_ + ((boundary - 1) * num_slots() + slot) * shape_.hidden;
  }

  float* state(int64_t slot) const { return hidden(shape_.boundaries + 1, slot); }

  // Writes K and V [kv_heads][head_dim] of one token, or [head_dim] of one of its heads.
  void write(int64_t layer, int64_t slot, const float* k, const float* v);
  void write_head(int64_t layer, int64_t slot, int64_t head, const float* k, const float* v);

  // Reads them back, for tests.
  void read(int64_t layer, int64_t slot, float* k, float* v) const;

  // Whole blocks, (source, target): K, V, hidden and deep states. All sources are read before a target is written.
  // Throws std::out_of_range for a block that does not exist; nothing has been written then.
  void copy_blocks(const std::vector<std::pair<int32_t, int32_t>>& pairs);

 private:
  StoreShape shape_;
  int64_t head_bytes_, block_bytes_, layer_bytes_;
  Memory memory_;
  float* hidden_;
};

}  // namespace offramp
