// How fast the registers can go, without memory.

namespace offramp {
namespace {

constexpr int kPeakFloat = kFloatChains;
constexpr int kPeakInteger = kFloatChains - 2;  // a product needs a register before it is added

int64_t peak_float(int64_t steps) {
  Vec acc[kPeakFloat];
#pragma GCC unroll 16
  for (int c = 0; c < kPeakFloat; ++c) acc[c] = broadcast(static_cast<float>(c));
  Vec a = broadcast(0.999f), b = broadcast(0.001f);
  keep(a);  // the compiler must not know what is multiplied
  keep(b);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kPeakFloat; ++c) acc[c] = fma(a, acc[c], b);
  }
#pragma GCC unroll 16
  for (int c = 0; c < kPeakFloat; ++c) keep(acc[c]);
  return steps * kPeakFloat * kLanes;
}

int64_t peak_integer(int64_t steps) {
  int16_t numbers[2 * kLanes];
  for (int i = 0; i < 2 * kLanes; ++i) numbers[i] = static_cast<int16_t>(i & 1);
  IntVec acc[kPeakInteger];
#pragma GCC unroll 16
  for (int c = 0; c < kPeakInteger; ++c) acc[c] = broadcast_int(c);
  const Pairs a = load_shorts(numbers);
  Pairs b = a;
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kPeakInteger; ++c) {
      keep(b);  // or one product would do for all
      acc[c] = add_dots(acc[c], a, b);
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < kPeakInteger; ++c) keep(acc[c]);
  return steps * kPeakInteger * kLanes * 2;
}

}  // namespace
}  // namespace offramp
