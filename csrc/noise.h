// The noise of Gumbel-max sampling, a function of (seed, position, token id) alone: executors/noise.py in C++.
#pragma once

#include <cmath>
#include <cstdint>

namespace offramp {

constexpr uint64_t kGamma = 0x9E3779B97F4A7C15;

inline uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// Output `index` (from 0) of the SplitMix64 generator started at `state`.
inline uint64_t splitmix64(uint64_t state, uint64_t index) { return mix_bits(state + (index + 1) * kGamma); }

// The state from which the tokens of a position draw their bits.
inline uint64_t position_key(uint64_t seed, uint64_t position) { return splitmix64(splitmix64(seed, 0), position); }

inline uint64_t token_bits(uint64_t key, int64_t token) { return splitmix64(key, static_cast<uint64_t>(token)); }

// Standard Gumbel noise from a token's bits. The uniform number has 52 of them and a half: exact, never 0 or 1.
inline double gumbel(uint64_t bits) {
  const double uniform = (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52;
  return -std::log(-std::log(uniform));
}

}  // namespace offramp
