#include "draw.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "noise.h"

namespace offramp {
namespace {

constexpr double kBand = 4;  // of the first band of a descent, in units of the temperature

uint64_t noise_key(const ScoreRow& row) { return position_key(row.seed, static_cast<uint64_t>(row.position) + 1); }

double scaled(const ScoreRow& row, const Logits& logits, float logit) {
  return (static_cast<double>(logit) - static_cast<double>(logits.best())) / row.temperature;
}

bool limits_count(const ScoreRow& row, int64_t columns) { return row.top_k > 0 && row.top_k < columns; }

// Rules out columns before their noise is computed.
//
// With u the uniform number of a column, noise = -ln(-ln u) <= -ln(1 - u). So to reach the best value so far, it takes
// log2(1 - u) <= (logit / temperature - best value) * log2(e). On the left the bits of a float stand in for its
// logarithm: they are piecewise linear between powers of two and never above it. A few of the columns that pass could
// have been ruled out; none that could win is.
class Sieve {
 public:
  Sieve(double temperature, float top) : top_(top) {
    // Not above what a float holds; a smaller slope lets more pass.
    slope_ = static_cast<float>(std::min(kUnit * kLog2E / temperature, 1e30));
  }

  // Only values of `best` and more are of interest.
  void raise(double best) { height_ = static_cast<float>(kUnit * (kExponent + kSlack - best * kLog2E)); }

  // NaN (0 times infinity) passes.
  bool passes(uint64_t bits, float logit) const {
    const float left = static_cast<float>(static_cast<int32_t>(~bits >> 33));  // (1 - u) * 2^31, rounded down
    int32_t logarithm;
    std::memcpy(&logarithm, &left, sizeof logarithm);
    return !(static_cast<float>(logarithm) > (logit - top_) * slope_ + height_);
  }

 private:
  static constexpr double kLog2E = 1.4426950408889634;
  static constexpr double kUnit = 1 << 23;       // one power of two in the bits of a float
  static constexpr double kExponent = 127 + 31;  // of floats; of the 31 bits
  static constexpr double kSlack = 1.0 / 1024;   // far above the rounding of all this
  float top_;
  float slope_;
  float height_ = 0;
};

template <typename TokenOf>
Draw draw_among(const ScoreRow& row, const Logits& logits, int64_t begin, int64_t end, TokenOf&& token_of) {
  const uint64_t key = noise_key(row);
  // The most likely column sets the mark; it is in the range of one caller only, and does no harm in the others.
  Draw best{gumbel(token_bits(key, token_of(logits.argmax))), logits.argmax};
  Sieve sieve(row.temperature, logits.best());
  sieve.raise(best.value);
  for (int64_t column = begin; column < end; ++column) {
    const uint64_t bits = token_bits(key, token_of(column));
    if (!sieve.passes(bits, logits.values[column])) continue;
    const double value = scaled(row, logits, logits.values[column]) + gumbel(bits);
    const Draw drawn{value, column};
    best = better(best, drawn);
    sieve.raise(best.value);
  }
  return best;
}

}  // namespace

Draw better(const Draw& a, const Draw& b) {
  return b.value > a.value || (b.value == a.value && b.column < a.column) ? b : a;
}

bool truncates(const ScoreRow& row, int64_t columns) {
  return limits_count(row, columns) || row.top_p < 1 || row.min_p > 0;
}

bool needs_total(const ScoreRow& row, int64_t columns) { return row.top_p < 1 && !limits_count(row, columns); }

Draw draw_plain(const ScoreRow& row, const Head& head, const Logits& logits, int64_t begin, int64_t end) {
  if (head.ids.empty()) return draw_among(row, logits, begin, end, [](int64_t column) { return column; });
  const int32_t* ids = head.ids.data();
  return draw_among(row, logits, begin, end, [ids](int64_t column) { return static_cast<int64_t>(ids[column]); });
}

Draw draw_truncated(const ScoreRow& row, const Head& head, const Logits& logits, double total, std::vector<Place>* heap,
                    std::vector<Place>* kept) {
  const int64_t limit = limits_count(row, logits.columns) ? row.top_k : logits.columns;
  // With top_k, the total that top_p and min_p refer to is known only when all `limit` columns are.
  const bool count_first = limit < logits.columns && row.top_p < 1;
  const auto enough = [&row](double reached, double whole) { return row.top_p < 1 && reached >= row.top_p * whole; };

  kept->clear();
  double reached = 0;
  Descent descent(logits, kBand * row.temperature, heap);
  for (Place place; static_cast<int64_t>(kept->size()) < limit && descent.next(&place);) {
    const double weight = std::exp(scaled(row, logits, place.logit));
    // Places come in falling order: where one is dropped, so are all that follow.
    if (!count_first && (weight < row.min_p || (!kept->empty() && enough(reached, total)))) break;
    reached += weight;
    kept->push_back(place);
  }
  if (count_first) total = reached;

  const uint64_t key = noise_key(row);
  Draw best;
  Sieve sieve(row.temperature, logits.best());
  reached = 0;
  for (const Place& place : *kept) {
    const double value = scaled(row, logits, place.logit);
    if (count_first) {
      const double weight = std::exp(value);
      if (weight < row.min_p || (best.column >= 0 && enough(reached, total))) break;
      reached += weight;
    }
    const uint64_t bits = token_bits(key, head.token(place.column));
    if (best.column >= 0 && !sieve.passes(bits, place.logit)) continue;
    const Draw drawn{value + gumbel(bits), place.column};
    best = best.column < 0 ? drawn : better(best, drawn);
    sieve.raise(best.value);
  }
  return best;
}

}  // namespace offramp
