// Softmax statistics of a stretch of logits: one sweep for the largest, one for the sums.
namespace offramp {
namespace {

constexpr float kBanned = -__builtin_inff();
constexpr float kNothing = -87;         // beside a 1, exp of it adds nothing; of less, it may be slow (subnormal)
constexpr int64_t kSumsInFloat = 4096;  // logits whose sums are added up in floats, before they go on in double

// Lanes beyond the end are banned.
OFFRAMP_INLINE Vec load_logits(const float* logits, int64_t left) {
  if (left >= kLanes) return load(logits);
  return select(first_lanes(left), load_first(logits, left), broadcast(kBanned));
}

OFFRAMP_INLINE void find_largest(const float* logits, int64_t n, Softmax* out) {
  Vec best = broadcast(kBanned), second = best;
  IntVec at = broadcast_int(0);  // where a lane's best was first seen, in vectors
  Mask numbers = first_lanes(kLanes);
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec x = load_logits(logits + i, n - i);
    const Mask more = less(best, x);
    numbers = both(numbers, equal(x, x));
    second = max(second, min(best, x));
    at = select(more, broadcast_int(static_cast<int32_t>(i / kLanes)), at);
    best = select(more, x, best);
  }
  const float top = largest(best);
  const Mask winners = equal(best, broadcast(top));
  const uint32_t lanes = bits(winners);
  // Among equals the first logit: the earliest vector, and in it the lowest lane.
  const int32_t vector = -largest(select(winners, broadcast_int(0) - at, broadcast_int(-INT32_MAX)));
  int32_t places[kLanes];
  store_int(places, at);
  int64_t argmax = 0;
  for (int lane = kLanes - 1; lane >= 0; --lane) {
    if ((lanes >> lane & 1) != 0 && places[lane] == vector) argmax = int64_t{vector} * kLanes + lane;
  }
  const bool tied = (lanes & (lanes - 1)) != 0;
  out->best = top;
  out->second = tied ? top : largest(max(second, select(winners, broadcast(kBanned), best)));
  out->argmax = argmax < n ? argmax : 0;
  out->finite = bits(numbers) == 0xffff && top < __builtin_inff();
}

OFFRAMP_INLINE void add_sums(const float* logits, int64_t n, Softmax* out) {
  const Vec best = broadcast(out->best);
  Vec total = broadcast(0), dot = total;
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec below = max(load_logits(logits + i, n - i) - best, broadcast(kNothing));
    const Vec weight = exp(below);
    total = total + weight;
    dot = fma(weight, below, dot);
  }
  out->sum += static_cast<double>(sum(total));
  out->dot += static_cast<double>(sum(dot));
}

void softmax(const float* logits, int64_t n, bool sums, Softmax* out) {
  find_largest(logits, n, out);
  out->sum = out->dot = 0;
  if (!sums || !out->finite || !(out->best > kBanned)) return;
  for (int64_t i = 0; i < n; i += kSumsInFloat) add_sums(logits + i, n - i < kSumsInFloat ? n - i : kSumsInFloat, out);
}

}  // namespace
}  // namespace offramp
