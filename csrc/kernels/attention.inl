// Attention of the queries of one sequence that share a key/value head.
//
// Each query goes through the positions it sees in spans of 64 absolute positions, with an online softmax (Milakov and
// Gimelshein 2018): in every span first all scores, then their largest, then the weights, then the weighted sum of V.
//
//   score = fma over ascending channels of (q * scale) and K, from 0, a lane for each position; then + bias if any
//   best  = the larger of the best so far and the largest score of the span
//   total = total * exp(old best - best) + weights, in 16 lanes by position % 16, folded by halves at the end
//   sums  = sums * exp(old best - best), then fma over ascending positions of weight and V; at the end sums / total
//
// All of this concerns one query alone: how many go together changes only what stays in registers. A position that a
// query does not see never enters its sums, not even with weight 0, for it may hold a NaN.

#include "attention_tiles.inl"

namespace offramp {
namespace {

// What stays in registers: queries times vectors of K or V. Of up to kFewQueries queries two tiles are scored at once,
// and kSumVectors vectors summed. From kWideQueries on, a span is converted to floats once and for all of them.
#if defined(__AVX512F__)
constexpr int kScoreQueries = 8, kSumQueries = 4, kSumVectors = 4, kFewQueries = 4, kWideQueries = 9;
#elif defined(__AVX2__)
constexpr int kScoreQueries = 6, kSumQueries = 6, kSumVectors = 2, kFewQueries = 3, kWideQueries = 13;
#else
constexpr int kScoreQueries = 4, kSumQueries = 4, kSumVectors = 1, kFewQueries = 0, kWideQueries = 5;
#endif

// Vectors in a line of the cache.
template <typename Source>
constexpr int kLineVectors = kAlign / (kLanes * static_cast<int>(sizeof(typename Source::Element)));

// Scores of `queries` queries at `pair` neighbouring tiles from `first` on.
template <typename Source, int queries, int pair>
void score_block(const Source& k, int64_t first, int64_t channels, const float* q, int64_t width, float* scores) {
  Vec acc[pair][queries];
  for (int t = 0; t < pair; ++t)
    for (int i = 0; i < queries; ++i) acc[t][i] = broadcast(0);
  for (int64_t c = 0; c < channels; ++c) {
#pragma GCC unroll 2
    for (int t = 0; t < pair; ++t) {
      const Vec key = load_element(k.at[first + t] + c * k.stride);
      ask_ahead(k, first + t, c * k.stride);
#pragma GCC unroll 8
      for (int i = 0; i < queries; ++i) acc[t][i] = fma(broadcast(q[i * width + c]), key, acc[t][i]);
      if constexpr (pair > 1) forget_loads();
    }
  }
  for (int t = 0; t < pair; ++t)
    for (int i = 0; i < queries; ++i) store(scores + i * kSpan + t * kLanes, acc[t][i]);
}

// Of `queries` queries, at the tiles [first, last).
template <typename Source, int queries>
void score_some(const Attention& a, const Source& k, int64_t query, int64_t first, int64_t last) {
  const float* q = a.queries + query * a.width;
  float* scores = a.scores + query * kSpan;
  int64_t t = first;
  if constexpr (queries <= kFewQueries) {
    for (; t + 2 <= last; t += 2)
      score_block<Source, queries, 2>(k, t, a.task.head_dim, q, a.width, scores + t * kLanes);
  }
  for (; t < last; ++t) score_block<Source, queries, 1>(k, t, a.task.head_dim, q, a.width, scores + t * kLanes);
}

template <typename Source, int limit>
OFFRAMP_INLINE void score_count(int64_t count, const Attention& a, const Source& k, int64_t query, int64_t first,
                                int64_t last) {
  if constexpr (limit == 1)
    score_some<Source, 1>(a, k, query, first, last);
  else if (count == limit)
    score_some<Source, limit>(a, k, query, first, last);
  else
    score_count<Source, limit - 1>(count, a, k, query, first, last);
}

// Adds weight times V at the positions of `range` to the sums of `queries` queries, in `vectors` vectors of channels.
template <typename Source, int queries, int vectors>
void sum_block(const Source& v, Range range, const float* weights, float* sums, int64_t width, int64_t channel) {
  Vec acc[queries][vectors];
  for (int i = 0; i < queries; ++i)
    for (int j = 0; j < vectors; ++j) acc[i][j] = load(sums + i * width + j * kLanes);
  for (int64_t p = range.begin; p < range.end;) {
    const auto* tile = v.at[p / kLanes] + channel;
    const int64_t next = smaller((p / kLanes + 1) * kLanes, range.end);
    for (; p < next; ++p) {
      const auto* row = tile + p % kLanes * v.stride;
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) {
        const Vec value = load_element(row + j * kLanes);
        if (j % kLineVectors<Source> == 0) ask_ahead(v, p / kLanes, p % kLanes * v.stride + channel + j * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < queries; ++i) acc[i][j] = fma(broadcast(weights[i * kSpan + p]), value, acc[i][j]);
        if constexpr (vectors > 1) forget_loads();
      }
    }
  }
  for (int i = 0; i < queries; ++i)
    for (int j = 0; j < vectors; ++j) store(sums + i * width + j * kLanes, acc[i][j]);
}

template <typename Source, int queries, int vectors>
OFFRAMP_INLINE void sum_vectors(const Attention& a, const Source& v, int64_t query, Range range, int64_t channel) {
  const float* weights = a.scores + query * kSpan;
  float* sums = a.sums + query * a.width;
  for (; channel + vectors * kLanes <= a.width; channel += vectors * kLanes)
    sum_block<Source, queries, vectors>(v, range, weights, sums + channel, a.width, channel);
  if constexpr (vectors > 1) sum_vectors<Source, queries, vectors / 2>(a, v, query, range, channel);
}

template <typename Source, int limit>
OFFRAMP_INLINE void sum_count(int64_t count, const Attention& a, const Source& v, int64_t query, Range range) {
  if constexpr (limit == 1)
    sum_vectors<Source, 1, kSumVectors>(a, v, query, range, 0);
  else if (count == limit)
    sum_vectors<Source, limit, limit <= kFewQueries ? kSumVectors : 1>(a, v, query, range, 0);
  else
    sum_count<Source, limit - 1>(count, a, v, query, range);
}

// Queries [first, last): together where all see a position, one by one before and after that.
template <typename Source>
void sum_some(const Attention& a, const Source& v, int64_t start, int64_t first, int64_t last) {
  const int64_t group = a.task.group;
  const Range lowest = range_of(a.task, first / group, start), highest = range_of(a.task, (last - 1) / group, start);
  const Range common = {highest.begin, lowest.end};  // ranges ascend with the rows
  if (common.begin >= common.end || last - first == 1) {
    for (int64_t i = first; i < last; ++i) sum_count<Source, 1>(1, a, v, i, range_of(a.task, i / group, start));
    return;
  }
  for (int64_t i = first; i < last; ++i) {
    const Range own = range_of(a.task, i / group, start);
    if (own.begin < common.begin) sum_count<Source, 1>(1, a, v, i, {own.begin, common.begin});
  }
  sum_count<Source, kSumQueries>(last - first, a, v, first, common);
  for (int64_t i = first; i < last; ++i) {
    const Range own = range_of(a.task, i / group, start);
    if (own.end > common.end) sum_count<Source, 1>(1, a, v, i, {common.end, own.end});
  }
}

// Turns the scores of a query into weights, and brings total and sums to the new best score.
void weigh(const Attention& a, int64_t query, Range range) {
  float* scores = a.scores + query * kSpan;
  const Vec unseen = broadcast(-__builtin_inff());
  const int64_t first = range.begin / kLanes, last = (range.end + kLanes - 1) / kLanes;
  Vec largest_lanes = unseen;
  for (int64_t t = first; t < last; ++t) {
    Vec score = load(scores + t * kLanes);
    const int64_t begin = range.begin - t * kLanes, end = range.end - t * kLanes;
    if (begin > 0 || end < kLanes) {
      score = select(first_lanes(begin), unseen, select(first_lanes(end), score, unseen));
      store(scores + t * kLanes, score);
    }
    largest_lanes = max(largest_lanes, score);
  }
  const float old = a.best[query], top = largest(largest_lanes);
  const float best = old > top ? old : top;
  float lanes[kLanes];
  store(lanes, exp(broadcast(old - best)));
  const float factor = lanes[0];
  float* total_at = a.totals + query * kLanes;
  Vec total = load(total_at) * broadcast(factor);
  for (int64_t t = first; t < last; ++t) {
    const Vec weight = exp(load(scores + t * kLanes) - broadcast(best));
    store(scores + t * kLanes, weight);
    total = total + weight;
  }
  store(total_at, total);
  a.best[query] = best;
  if (factor == 1.0f) return;
  float* sums = a.sums + query * a.width;
  for (int64_t c = 0; c < a.width; c += kLanes) store(sums + c, load(sums + c) * broadcast(factor));
}

template <typename Source>
void score_span(const Attention& a, const Source& k, Range range, int64_t first, int64_t last) {
  const int64_t blocks = ceil_div(last - first, kScoreQueries);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t from = first + (last - first) * b / blocks, to = first + (last - first) * (b + 1) / blocks;
    score_count<Source, kScoreQueries>(to - from, a, k, from, range.begin / kLanes, ceil_div(range.end, kLanes));
  }
}

template <typename Source>
void sum_span(const Attention& a, const Source& v, int64_t start, int64_t first, int64_t last) {
  const int64_t blocks = ceil_div(last - first, kSumQueries);
  for (int64_t b = 0; b < blocks; ++b) {
    sum_some(a, v, start, first + (last - first) * b / blocks, first + (last - first) * (b + 1) / blocks);
  }
}

// Rows [first, last), all of which see some of the positions from `start` on.
template <typename T>
void attend_span(const Attention& a, int64_t start, int64_t first, int64_t last) {
  const Attend& task = a.task;
  const Range range = {range_of(task, first, start).begin, range_of(task, last - 1, start).end};
  const int64_t from = first * task.group, to = last * task.group;
  const bool gather = !whole_tiles(task), widen = sizeof(T) == 2 && to - from >= kWideQueries;
  if (gather)
    score_span(a, keys_gathered<T>(a, start, range), range, from, to);
  else if (widen)
    score_span(a, keys_widened(a, start, range), range, from, to);
  else
    score_span(a, keys_in_place<T>(task, start, range), range, from, to);
  if (task.bias)
    for (int64_t i = from; i < to; ++i) add_bias(a, i, start, range);
  for (int64_t i = from; i < to; ++i) weigh(a, i, range_of(task, i / task.group, start));
  if (gather)
    sum_span(a, values_gathered<T>(a, start, range), start, from, to);
  else if (widen)
    sum_span(a, values_widened(a, start, range), start, from, to);
  else
    sum_span(a, values_in_place<T>(task, start, range, end_seen(task, last - 1)), start, from, to);
}

void start_queries(const Attention& a) {
  const Attend& task = a.task;
  for (int64_t i = 0; i < task.rows * task.group; ++i) {
    const float* q = task.q + i / task.group * task.q_stride + i % task.group * task.head_dim;
    for (int64_t c = 0; c < a.width; c += kLanes) {
      store(a.queries + i * a.width + c, load_first(q + c, task.head_dim - c) * broadcast(task.scale));
      store(a.sums + i * a.width + c, broadcast(0));
    }
    store(a.totals + i * kLanes, broadcast(0));
    a.best[i] = -__builtin_inff();
  }
}

void finish_queries(const Attention& a) {
  const Attend& task = a.task;
  for (int64_t i = 0; i < task.rows * task.group; ++i) {
    float* out = task.out + i / task.group * task.out_stride + i % task.group * task.head_dim;
    const Vec total = broadcast(sum(load(a.totals + i * kLanes)));
    for (int64_t c = 0; c < a.width; c += kLanes)
      store_first(out + c, task.head_dim - c, load(a.sums + i * a.width + c) / total);
  }
}

void attend(const Attend& task) {
  const int64_t count = task.rows * task.group, width = ceil_div(task.head_dim, kLanes) * kLanes;
  if (count == 0) return;
  float* scratch = task.scratch;
  const auto take = [&scratch](int64_t floats) {
    float* taken = scratch;
    scratch += floats;
    return taken;
  };
  float* queries = take(count * width);
  float* sums = take(count * width);
  float* scores = take(count * kSpan);
  float* totals = take(count * kLanes);
  float* best = take(ceil_div(count, kLanes) * kLanes);
  const Attention a = {task, width, queries, sums, scores, totals, best, take(kSpan * width)};
  start_queries(a);
  int64_t first = 0, last = 0;
  for (int64_t start = first_seen(task, 0) / kSpan * kSpan; start < end_seen(task, task.rows - 1); start += kSpan) {
    while (end_seen(task, first) <= start) ++first;
    while (last < task.rows && first_seen(task, last) < start + kSpan) ++last;
    if (first >= last) continue;
    if (task.half)
      attend_span<uint16_t>(a, start, first, last);
    else
      attend_span<float>(a, start, first, last);
  }
  finish_queries(a);
}

}  // namespace
}  // namespace offramp
