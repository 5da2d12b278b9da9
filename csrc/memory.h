// Large memory: zero-filled, aligned to 64 bytes, in huge pages where the system grants them.
//
// Looking up the addresses of pages of 4 KiB costs a part of the bandwidth.
#pragma once

#include <cstdint>

namespace offramp {

class Memory {
 public:
  Memory() = default;
  explicit Memory(int64_t bytes);  // throws std::bad_alloc
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_ = nullptr;
  void* mapping_ = nullptr;  // null: from the allocator
  int64_t mapped_ = 0;
};

}  // namespace offramp
