// Matrix products: rows are cut into blocks that fit the registers; see matmul_float.inl and matmul_integer.inl.

namespace offramp {
namespace {

using RowsFunction = void (*)(const Matrix&, const Rows&, int64_t row, int64_t begin, int64_t end, float*, int64_t,
                              bool);

template <WeightType type, int rows>
void some_rows(const Matrix& w, const Rows& x, int64_t row, int64_t begin, int64_t end, float* out, int64_t stride,
               bool add) {
  if constexpr (is_integer(type))
    integer_rows<type, rows>(w, x, row, begin, end, out, stride, add);
  else
    float_rows<type, rows>(w, x, row, begin, end, out, stride, add);
}

// How many of `left` rows the next block takes. Few sizes keep compile time down; two blocks of like size are better
// than a full one and a single row.
template <int limit>
OFFRAMP_INLINE int64_t block_rows(int64_t left) {
  if (left > limit && left < 2 * limit) left = ceil_div(left, 2);
  return limit >= 8 && left >= 8 ? 8 : limit >= 6 && left >= 6 ? 6 : left >= 4 ? 4 : left;
}

template <WeightType type, int limit>
OFFRAMP_INLINE RowsFunction block_function(int64_t rows) {
  if constexpr (limit >= 8)
    if (rows == 8) return some_rows<type, 8>;
  if constexpr (limit >= 6)
    if (rows == 6) return some_rows<type, 6>;
  return rows == 4   ? some_rows<type, 4>
         : rows == 3 ? some_rows<type, 3>
         : rows == 2 ? some_rows<type, 2>
                     : some_rows<type, 1>;
}

template <WeightType type>
void matmul_of(const Matrix& w, const Rows& x, int64_t begin, int64_t end, float* out, int64_t stride, bool add) {
  constexpr int limit = is_integer(type) ? kIntegerRows : kFloatRows;
  // Inputs of a chunk of rows stay in the L2 cache while the panels go by; a panel stays in L1 or L2 for the blocks of
  // a chunk.
  const int64_t row_bytes = w.k * (is_integer(type) ? 2 : 4);
  const int64_t fit = kChunkBytes / (row_bytes > 0 ? row_bytes : 1) / limit * limit;
  const int64_t chunk = fit > limit ? fit : limit;
  for (int64_t row = 0; row < x.count; row += chunk) {
    const int64_t count = x.count - row < chunk ? x.count - row : chunk;
    for (int64_t p = begin; p < end;) {
      const int64_t next = count <= limit || p + kPanelsTogether > end ? end : p + kPanelsTogether;
      for (int64_t first = row; first < row + count;) {
        const int64_t rows = block_rows<limit>(row + count - first);
        float* target = out + first * stride + (p - begin) * kPanel;
        block_function<type, limit>(rows)(w, x, first, p, next, target, stride, add);
        first += rows;
      }
      p = next;
    }
  }
}

void matmul(const Matrix& w, const Rows& x, int64_t begin, int64_t end, float* out, int64_t stride, bool add) {
  switch (w.type) {
    case WeightType::f32: return matmul_of<WeightType::f32>(w, x, begin, end, out, stride, add);
    case WeightType::f16: return matmul_of<WeightType::f16>(w, x, begin, end, out, stride, add);
    case WeightType::bf16: return matmul_of<WeightType::bf16>(w, x, begin, end, out, stride, add);
    case WeightType::i8: return matmul_of<WeightType::i8>(w, x, begin, end, out, stride, add);
    case WeightType::i4: return matmul_of<WeightType::i4>(w, x, begin, end, out, stride, add);
    case WeightType::i4m: return matmul_of<WeightType::i4m>(w, x, begin, end, out, stride, add);
  }
}

}  // namespace
}  // namespace offramp
