// What attention.inl works on: the state of a task, and where K and V of a span of positions are.

namespace offramp {
namespace {

constexpr int64_t kSpan = 64;  // positions in a step of the softmax
constexpr int64_t kTiles = kSpan / kLanes;

// The state of a task; all queries are laid out row after row.
struct Attention {
  const Attend& task;
  int64_t width;   // of a head, in whole vectors
  float* queries;  // [queries][width], times scale
  float* sums;     // [queries][width]
  float* scores;   // [queries][kSpan], then weights
  float* totals;   // [queries][kLanes]
  float* best;     // [queries]
  float* tiles;    // [kSpan][width]: K or V of a span as floats
};

// K or V of a span: a pointer to each tile, with rows `stride` elements apart. Rows are channels in K, positions in V.
template <typename T>
struct Tiles {
  using Element = T;
  const T* at[kTiles];
  int64_t stride;
};

// Tiles in the store, and those that are read after them, or the same again where there are none. Memory is asked for
// these meanwhile: blocks lie far apart, so the hardware does not see them coming.
template <typename T>
struct StoreTiles : Tiles<T> {
  const T* soon[kTiles];
};

template <typename T>
OFFRAMP_INLINE void ask_ahead(const Tiles<T>&, int64_t, int64_t) {}

template <typename T>
OFFRAMP_INLINE void ask_ahead(const StoreTiles<T>& tiles, int64_t tile, int64_t element) {
  prefetch(tiles.soon[tile] + element);
}

// Positions [begin, end) of the span that a query sees.
struct Range {
  int64_t begin, end;
};

OFFRAMP_INLINE Vec load_element(const float* p) { return load(p); }
OFFRAMP_INLINE Vec load_element(const uint16_t* p) { return load_half(p); }
OFFRAMP_INLINE float to_float(float x) { return x; }
OFFRAMP_INLINE float to_float(uint16_t x) { return half_to_float(x); }

OFFRAMP_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
OFFRAMP_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// A row sees the positions [first_seen, end_seen).
OFFRAMP_INLINE int64_t first_seen(const Attend& task, int64_t row) {
  return task.window > 0 ? larger(0, task.positions[row] - task.window + 1) : 0;
}

OFFRAMP_INLINE int64_t end_seen(const Attend& task, int64_t row) {
  return task.length > 0 ? task.length : task.positions[row] + 1;
}

OFFRAMP_INLINE Range range_of(const Attend& task, int64_t row, int64_t start) {
  return {larger(first_seen(task, row) - start, 0), smaller(end_seen(task, row) - start, kSpan)};
}

template <typename T>
OFFRAMP_INLINE const T* at_block(const Attend& task, const uint8_t* base, int64_t position) {
  return reinterpret_cast<const T*>(base + task.blocks[position / task.block_size] * task.block_stride);
}

// Whether a tile of K and V can be read where it lies.
OFFRAMP_INLINE bool whole_tiles(const Attend& task) {
  return task.block_size % kLanes == 0 && task.head_dim % kLanes == 0;
}

// Whether a tile of K is one piece of memory, as one of V always is.
OFFRAMP_INLINE bool in_one_piece(const Attend& task) { return task.block_size == kLanes; }

template <typename T>
OFFRAMP_INLINE const T* key_tile(const Attend& task, int64_t position) {
  return at_block<T>(task, task.k, position) + position % task.block_size;
}

template <typename T>
OFFRAMP_INLINE const T* value_tile(const Attend& task, int64_t position) {
  return at_block<T>(task, task.v, position) + position % task.block_size * task.head_dim;
}

// After K of a span comes its V.
template <typename T>
StoreTiles<T> keys_in_place(const Attend& task, int64_t start, Range range) {
  StoreTiles<T> k;
  k.stride = task.block_size;
  for (int64_t t = range.begin / kLanes; t * kLanes < range.end; ++t) {
    k.at[t] = key_tile<T>(task, start + t * kLanes);
    k.soon[t] = in_one_piece(task) ? value_tile<T>(task, start + t * kLanes) : k.at[t];
  }
  return k;
}

// After V of a span comes K of the next, as far as positions below `end`.
template <typename T>
StoreTiles<T> values_in_place(const Attend& task, int64_t start, Range range, int64_t end) {
  StoreTiles<T> v;
  v.stride = task.head_dim;
  for (int64_t t = range.begin / kLanes; t * kLanes < range.end; ++t) {
    const int64_t position = start + t * kLanes, next = position + kSpan;
    v.at[t] = value_tile<T>(task, position);
    v.soon[t] = in_one_piece(task) && next < end ? key_tile<T>(task, next) : v.at[t];
  }
  return v;
}

// Adds the bias of their offsets to the scores of a query at the tiles of `range`. Past the table's ends all is alike.
void add_bias(const Attention& a, int64_t query, int64_t start, Range range) {
  const Attend& task = a.task;
  const float* bias = task.bias + query % task.group * bias_size(task.reach);
  const int64_t own = task.positions[query / task.group], last = 2 * task.reach + kLanes + 1;
  for (int64_t t = range.begin / kLanes; t * kLanes < range.end; ++t) {
    const int64_t entry = start + t * kLanes - own + task.reach + kLanes;
    float* scores = a.scores + query * kSpan + t * kLanes;
    store(scores, load(scores) + load(bias + smaller(larger(entry, 0), last)));
  }
}

// As floats in a.tiles, for many queries.
Tiles<float> keys_widened(const Attention& a, int64_t start, Range range) {
  Tiles<float> wide = {{}, kLanes};
  for (int64_t t = range.begin / kLanes; t * kLanes < range.end; ++t) {
    const uint16_t* k = key_tile<uint16_t>(a.task, start + t * kLanes);
    float* tile = a.tiles + t * a.width * kLanes;
    for (int64_t c = 0; c < a.width; ++c) store(tile + c * kLanes, load_half(k + c * a.task.block_size));
    wide.at[t] = tile;
  }
  return wide;
}

Tiles<float> values_widened(const Attention& a, int64_t start, Range range) {
  Tiles<float> wide = {{}, a.width};
  for (int64_t t = range.begin / kLanes; t * kLanes < range.end; ++t) {
    const uint16_t* v = value_tile<uint16_t>(a.task, start + t * kLanes);
    float* tile = a.tiles + t * a.width * kLanes;
    for (int64_t i = 0; i < kLanes * a.width; i += kLanes) store(tile + i, load_half(v + i));
    wide.at[t] = tile;
  }
  return wide;
}

// Gathered one by one, for blocks and heads that tiles do not fit into. Only positions of `range` are read.
template <typename T>
Tiles<float> keys_gathered(const Attention& a, int64_t start, Range range) {
  const Attend& task = a.task;
  Tiles<float> wide = {{}, kLanes};
  for (int64_t t = 0; t < kTiles; ++t) wide.at[t] = a.tiles + t * a.width * kLanes;
  for (int64_t i = 0; i < kSpan * a.width; ++i) a.tiles[i] = 0;
  for (int64_t p = range.begin; p < range.end; ++p) {
    const T* block = at_block<T>(task, task.k, start + p) + (start + p) % task.block_size;
    float* tile = a.tiles + p / kLanes * a.width * kLanes + p % kLanes;
    for (int64_t c = 0; c < task.head_dim; ++c) tile[c * kLanes] = to_float(block[c * task.block_size]);
  }
  return wide;
}

template <typename T>
Tiles<float> values_gathered(const Attention& a, int64_t start, Range range) {
  const Attend& task = a.task;
  Tiles<float> wide = {{}, a.width};
  for (int64_t t = 0; t < kTiles; ++t) wide.at[t] = a.tiles + t * kLanes * a.width;
  for (int64_t p = range.begin; p < range.end; ++p) {
    const T* row = at_block<T>(task, task.v, start + p) + (start + p) % task.block_size * task.head_dim;
    float* target = a.tiles + p * a.width;
    for (int64_t c = 0; c < a.width; ++c) target[c] = c < task.head_dim ? to_float(row[c]) : 0;
  }
  return wide;
}

}  // namespace
}  // namespace offramp
