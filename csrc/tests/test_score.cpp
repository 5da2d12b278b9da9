// The parts of scoring against plain loops: noise, statistics, order, penalties.
#include <cstdio>
#include <set>

#include "noise.h"
#include "penalties.h"
#include "toy_logits.h"

using namespace offramp;

namespace {

void noise_is_splitmix64() {
  CHECK(splitmix64(1234567, 0) == 6457827717110365317u);
  CHECK(splitmix64(1234567, 1) == 3203168211198807973u);
  CHECK(splitmix64(1234567, 2) == 9817491932198370423u);
  CHECK(std::isfinite(gumbel(0)) && std::isfinite(gumbel(~uint64_t{0})));
}

bool same(const Softmax& a, const Softmax& b) {
  return a.best == b.best && a.second == b.second && a.argmax == b.argmax && a.sum == b.sum && a.dot == b.dot &&
         a.finite == b.finite;
}

void statistics_against_a_loop() {
  const Kernels* const* tables;
  const int count = supported_kernels(&tables);
  for (const int64_t n : {1, 2, 15, 16, 17, 31, 48, 100, 511, 512, 4096, 4097, 9001}) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      const std::vector<float> logits = random_logits(n, repeat % 2 ? 1.0f : 20.0f);
      const std::vector<int64_t> order = ordered(logits);
      const float best = logits[order[0]];
      double sum = 0, dot = 0;
      for (const float x : logits) {
        const double d = static_cast<double>(x) - best;
        if (x > -kInf) sum += std::exp(d), dot += std::exp(d) * d;
      }
      Softmax first;
      for (int i = 0; i < count; ++i) {
        Softmax got;
        tables[i]->softmax(logits.data(), n, true, &got);
        CHECK(got.best == best && got.argmax == order[0] && got.finite);
        CHECK(got.second == (n > 1 ? logits[order[1]] : -kInf));
        CHECK(close(got.sum, sum, 1e-6) && close(got.dot, dot, 1e-6));
        if (i == 0) first = got;
        CHECK(same(first, got));
      }
    }
  }
  for (const float bad : {std::nanf(""), kInf}) {
    std::vector<float> logits = random_logits(100, 1);
    logits[below(100)] = bad;
    for (int i = 0; i < count; ++i) {
      Softmax got;
      tables[i]->softmax(logits.data(), 100, true, &got);
      CHECK(!got.finite);
    }
  }
}

void stretches_make_up_a_row() {
  for (const int64_t n : {1, 40, 512, 513, 5000}) {
    for (const double temperature : {1.0, 0.3, 4.0, 1e-300, 1e300}) {
      const std::vector<float> logits = random_logits(n, 3);
      const Wanted wanted{true, true, temperature};
      const Swept swept(logits, wanted);
      const std::vector<int64_t> order = ordered(logits);
      double sum = 0, dot = 0, tempered = 0;
      for (const float x : logits) {
        const double d = static_cast<double>(x) - logits[order[0]];
        if (x > -kInf) sum += std::exp(d), dot += std::exp(d) * d, tempered += std::exp(d / temperature);
      }
      const Softmax& got = swept.sums.softmax;
      CHECK(got.argmax == order[0] && got.best == logits[order[0]]);
      CHECK(got.second == (n > 1 ? logits[order[1]] : -kInf));
      CHECK(close(got.sum, sum, 1e-6) && close(got.dot, dot, 1e-6) && close(swept.sums.tempered, tempered, 1e-6));
    }
  }
  CHECK(!Swept(std::vector<float>(700, -kInf), {true, true, 1}).sums.softmax.finite);
}

void a_descent_is_a_sort() {
  std::vector<Place> heap;
  for (const int64_t n : {1, 7, 600, 3000}) {
    for (const double width : {1e-300, 0.5, 4.0, 1e300}) {
      for (const float scale : {0.0f, 1.0f, 1e6f, 1e38f}) {
        std::vector<float> logits = random_logits(n, std::min(scale, 1e36f));
        if (scale == 1e38f) logits[0] = std::numeric_limits<float>::lowest();
        const Swept swept(logits, {});
        Descent descent(swept.logits, width, &heap);
        Place place;
        for (const int64_t column : ordered(logits)) {
          if (logits[column] == -kInf) break;
          CHECK(descent.next(&place) && place.column == column && place.logit == logits[column]);
        }
        CHECK(!descent.next(&place));
      }
    }
  }
}

void adjustments_against_a_loop() {
  Counts counts;
  for (int repeat = 0; repeat < 500; ++repeat) {
    const int64_t columns = 1 + below(60);
    const bool other = below(2);
    const bool reduced = other || below(2);
    Head head = reduced ? reduced_head(columns, other) : plain_head(columns);
    counts.reserve(head.vocab());
    ScoreRow row;
    const auto some = [&](int64_t most) {
      std::vector<int32_t> tokens;
      for (int64_t i = below(most + 1); i > 0; --i) tokens.push_back(static_cast<int32_t>(below(head.vocab() + 3) - 1));
      return tokens;
    };
    row.repetition_penalty = below(2) ? 1.5 : 1;
    row.frequency_penalty = below(2) ? 0.25 : 0;
    row.presence_penalty = below(2) ? -0.5 : 0;
    row.prompt = some(20), row.output = some(20), row.banned = some(10);
    if (below(4) == 0) {
      for (int32_t t = 0; t < head.vocab(); ++t) {
        if (head.column(t) < 0) row.banned.push_back(t);
      }
    }
    if (below(2)) row.mask = random_mask(head.vocab(), 1 + below(3));
    for (const int32_t token : std::set<int32_t>{some(1).empty() ? 1 : 4, 7}) row.bias.emplace_back(token, normal(2));

    std::vector<float> logits = random_logits(head.matrix.n, 2), expected = logits;
    bool allowed = true;
    const auto column_of = [&](int32_t token) { return head.knows(token) ? head.column(token) : -1; };
    for (const auto& [token, bias] : row.bias) {
      if (column_of(token) >= 0) expected[column_of(token)] += bias;
      if (head.knows(token) && column_of(token) < 0 && bias > 0) allowed = false;
    }
    std::set<int32_t> banned(row.banned.begin(), row.banned.end());
    for (int32_t t = 0; t < head.vocab() && !row.mask.empty(); ++t) {
      if (!(row.mask[static_cast<size_t>(t / 8)] & 1u << t % 8)) banned.insert(t);
    }
    int64_t left_outside = 0;
    for (int32_t t = 0; t < head.vocab(); ++t) {
      const int64_t column = column_of(t);
      if (column >= 0 && banned.count(t)) expected[static_cast<size_t>(column)] = -kInf;
      left_outside += column < 0 && !banned.count(t);
    }
    if (other && left_outside == 0) expected[columns] = -kInf;
    std::set<int32_t> seen(row.prompt.begin(), row.prompt.end());
    seen.insert(row.output.begin(), row.output.end());
    for (const int32_t t : seen) {
      if (column_of(t) < 0) continue;
      float& x = expected[column_of(t)];
      x = x > 0 ? x / static_cast<float>(row.repetition_penalty) : x * static_cast<float>(row.repetition_penalty);
    }
    for (const int32_t t : std::set<int32_t>(row.output.begin(), row.output.end())) {
      const auto times = std::count(row.output.begin(), row.output.end(), t);
      if (column_of(t) >= 0)
        expected[column_of(t)] -= 0.25f * times * (row.frequency_penalty != 0) - 0.5f * (row.presence_penalty != 0);
    }
    CHECK(adjust(row, head, logits.data(), counts) == allowed);
    for (int64_t c = 0; c < head.matrix.n; ++c) CHECK(logits[c] == expected[c] || close(logits[c], expected[c], 1e-6));
    CHECK(std::all_of(counts.of.begin(), counts.of.end(), [](int32_t n) { return n == 0; }));
  }
}

}  // namespace

int main() {
  noise_is_splitmix64();
  statistics_against_a_loop();
  stretches_make_up_a_row();
  a_descent_is_a_sort();
  adjustments_against_a_loop();
  std::puts("ok");
}
