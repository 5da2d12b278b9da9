// Draws against plain loops over every column.
#include <cstdio>

#include "draw.h"
#include "noise.h"
#include "toy_logits.h"

using namespace offramp;

namespace {

// The largest value among all columns, by the definition.
Draw draw_slowly(const ScoreRow& row, const Head& head, const std::vector<float>& logits,
                 const std::vector<bool>& kept) {
  const float best = *std::max_element(logits.begin(), logits.end());
  const uint64_t key = position_key(row.seed, static_cast<uint64_t>(row.position + 1));
  Draw drawn;
  for (size_t c = 0; c < logits.size(); ++c) {
    if (!kept[c] || logits[c] == -kInf) continue;
    const double scaled = (static_cast<double>(logits[c]) - best) / row.temperature;
    const double value = scaled + gumbel(token_bits(key, head.token(static_cast<int64_t>(c))));
    if (drawn.column < 0 || value > drawn.value) drawn = {value, static_cast<int64_t>(c)};
  }
  return drawn;
}

void plain_draws_look_at_every_column() {
  for (int repeat = 0; repeat < 3000; ++repeat) {
    const int64_t n = 1 + below(repeat % 10 ? 200 : 5000);
    const std::vector<float> logits = random_logits(n, repeat % 3 ? 1.0f : 8.0f);
    const Head head = repeat % 2 ? reduced_head(n, false) : plain_head(n);
    ScoreRow row;
    const double temperatures[] = {1, 0.7, 0.05, 30, 1e-30, 1e-300, 5e-324, 1e300};
    row.temperature = temperatures[below(8)];
    row.seed = random_bits();
    row.position = below(1000);
    const Swept swept(logits, {});
    const Draw expected = draw_slowly(row, head, logits, std::vector<bool>(static_cast<size_t>(n), true));
    const int64_t middle = below(n + 1);
    const Draw drawn =
        better(draw_plain(row, head, swept.logits, 0, middle), draw_plain(row, head, swept.logits, middle, n));
    CHECK(drawn.column == expected.column && drawn.value == expected.value);
  }
}

std::vector<bool> truncate_slowly(const ScoreRow& row, const std::vector<float>& logits) {
  const std::vector<int64_t> order = ordered(logits);
  const auto n = static_cast<int64_t>(logits.size());
  const int64_t limit = row.top_k > 0 ? std::min(row.top_k, n) : n;
  std::vector<double> weights;
  for (const int64_t c : order) {
    weights.push_back(std::exp((static_cast<double>(logits[c]) - logits[order[0]]) / row.temperature));
  }
  const double total = std::accumulate(weights.begin(), weights.begin() + limit, 0.0);
  std::vector<bool> kept(logits.size(), false);
  double reached = 0;
  for (int64_t i = 0; i < limit; ++i) {
    const bool beyond = row.top_p < 1 && i > 0 && reached >= row.top_p * total;
    kept[order[i]] = !beyond && weights[i] >= row.min_p * weights[0];
    reached += weights[i];
  }
  return kept;
}

void truncated_draws_keep_what_the_definition_keeps() {
  std::vector<Place> heap, scratch;
  int64_t dropped = 0;
  for (int repeat = 0; repeat < 3000; ++repeat) {
    const int64_t n = 1 + below(repeat % 10 ? 100 : 3000);
    const std::vector<float> logits = random_logits(n, 2);
    const Head head = repeat % 2 ? reduced_head(n, false) : plain_head(n);
    ScoreRow row;
    const double temperatures[] = {1, 0.5, 3, 1e-300};
    row.temperature = temperatures[below(4)];
    row.seed = random_bits();
    row.top_k = below(2) ? 1 + below(2 * n) : 0;
    row.top_p = below(2) ? 0.001 + 0.99 * static_cast<double>(below(1000)) / 1000 : 1;
    row.min_p = below(2) ? static_cast<double>(below(11)) / 10 : 0;
    const bool needs = needs_total(row, n);
    const Swept swept(logits, {false, needs, row.temperature});
    const std::vector<bool> kept = truncate_slowly(row, logits);
    const Draw expected = draw_slowly(row, head, logits, kept);
    const Draw drawn = draw_truncated(row, head, swept.logits, swept.sums.tempered, &heap, &scratch);
    CHECK(drawn.column == expected.column && drawn.value == expected.value);
    dropped += std::count(kept.begin(), kept.end(), false) > 0;
    if (!truncates(row, n)) CHECK(std::count(kept.begin(), kept.end(), true) == n);
  }
  CHECK(dropped > 1000);
}

void the_lower_column_of_equal_draws_is_the_better() {
  const Draw low{0.5, 3}, high{0.5, 9}, best{0.75, 20};
  CHECK(better(low, high).column == 3 && better(high, low).column == 3);
  CHECK(better(low, best).column == 20 && better(best, low).column == 20);
}

}  // namespace

int main() {
  the_lower_column_of_equal_draws_is_the_better();
  plain_draws_look_at_every_column();
  truncated_draws_keep_what_the_definition_keeps();
  std::puts("ok");
}
