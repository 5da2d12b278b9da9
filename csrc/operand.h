// Rows on their way into matrix products: floats, and their integers where weights are integers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels.h"
#include "weights.h"

namespace offramp {

// Aligned memory that only grows and forgets what it held when it does.
template <typename T>
class Buffer {
 public:
  T* reserve(int64_t count) {
    if (count > size_) {
      const size_t bytes = static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), kAlign));
      data_.reset(static_cast<T*>(std::aligned_alloc(kAlign, bytes)));
      size_ = data_ ? count : 0;
      if (!data_) throw std::bad_alloc();
    }
    return data_.get();
  }
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t size_ = 0;
};

class Operand {
 public:
  void reserve(int64_t k, int64_t count) {
    k_ = k;
    stride_ = round_up(k, kPanel);
    x_.reserve(count * stride_);
    q_.reserve(count * num_groups(k) * kGroup);
    scale_.reserve(count);
    sum_.reserve(count * num_groups(k));
  }

  float* row(int64_t i) const { return x_.get() + i * stride_; }

  void quantize(int64_t i) const { quantize(i, row(i)); }

  // The integers of row i from floats that lie elsewhere.
  void quantize(int64_t i, const float* x) const {
    const int64_t groups = num_groups(k_);
    kernels().quantize(x, k_, q_.get() + i * groups * kGroup, scale_.get() + i, sum_.get() + i * groups);
  }

  Rows rows(int64_t count) const { return rows(0, count); }
  Rows rows(int64_t first, int64_t count) const {
    const int64_t at = first * num_groups(k_);
    return {count, row(first), stride_, q_.get() + at * kGroup, scale_.get() + first, sum_.get() + at};
  }
  int64_t stride() const { return stride_; }

 private:
  int64_t k_ = 0, stride_ = 0;
  Buffer<float> x_, scale_;
  Buffer<int16_t> q_;
  Buffer<int32_t> sum_;
};

// Rows [first, first + count) of k inputs each.
inline Rows part(const Rows& rows, int64_t k, int64_t first, int64_t count) {
  const int64_t groups = num_groups(k);
  return {count,
          rows.x + first * rows.x_stride,
          rows.x_stride,
          rows.q + first * groups * kGroup,
          rows.scale + first,
          rows.sum + first * groups};
}

}  // namespace offramp
