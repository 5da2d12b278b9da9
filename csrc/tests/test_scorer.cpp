// Whole heads of every kind against plain loops, and the promises: no result depends on the rows scored together, on
// the threads or on the instruction set, and a row that is not finite fails alone.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "scorer.h"
#include "testing.h"
#include "toy_heads.h"

using namespace offramp;

namespace {

constexpr uint32_t kAll = max_prob | margin | entropy | saturation | classifier;

// Two boundaries with the same head, and states at both.
struct Bench {
  Pool pool;
  Store store;
  Scorer scorer;

  Bench(const Head& head, int threads)
      : pool(threads), store(shape(head.past)), scorer(&pool, &store, {head, head}, kVocab, kEps) {}

  static StoreShape shape(bool states) {
    StoreShape shape;
    shape.states = states;
    shape.layers = shape.kv_heads = 1;
    shape.head_dim = 2;
    shape.boundaries = 2;
    shape.hidden = kHidden;
    shape.block_size = 4;
    shape.num_blocks = kSlots / 4;
    return shape;
  }

  void fill(const Floats& states) {
    for (int64_t boundary = 1; boundary <= 2; ++boundary) {
      for (int64_t slot = 0; slot < kSlots; ++slot) {
        std::copy_n(states.data() + (slot * 2 + boundary - 1) * kHidden, kHidden, store.hidden(boundary, slot));
      }
    }
  }
};

std::vector<ScoreRow> greedy_rows() {
  std::vector<ScoreRow> rows(kSlots);
  for (int64_t i = 0; i < kSlots; ++i) rows[i].slot = rows[i].position = (i * 37) % kSlots;
  return rows;
}

// Rows with all kinds of sampling, mixed.
std::vector<ScoreRow> mixed_rows() {
  std::vector<ScoreRow> rows = greedy_rows();
  for (int64_t i = 0; i < kSlots; ++i) {
    ScoreRow& row = rows[i];
    row.seed = static_cast<uint64_t>(i % 5);
    if (i % 2) row.temperature = 0.5 + static_cast<double>(i % 7);
    if (i % 3 == 0) row.top_p = 0.8;
    if (i % 5 == 0) row.top_k = 40;
    if (i % 7 == 0) row.min_p = 0.01;
    if (i % 4 == 0) row.logprobs = static_cast<int32_t>(i % 12);
    if (i % 8 == 1)
      row.repetition_penalty = 1.3, row.presence_penalty = 0.5, row.prompt = {1, 2, 3}, row.output = {3, 5};
    if (i % 9 == 2) row.banned = {1, 3, 5, 7};
    if (i % 6 == 4) row.mask.assign(kVocab / 8, static_cast<uint8_t>(i % 4 ? 0x61 : 0x20));
    if (i % 10 == 3) row.bias = {{9, 4.0f}, {11, -4.0f}};
  }
  return rows;
}

// Half of the slots, each behind one of the other half, or behind none.
std::vector<ScoreRow> rows_with_past(const Store& store) {
  std::vector<ScoreRow> rows = greedy_rows(), behind(rows.begin() + kSlots / 2, rows.end());
  rows.resize(kSlots / 2);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i % 10) rows[i].before = behind[i].slot;
    const Floats state = random_floats(kHidden, 1);
    std::copy_n(state.data(), kHidden, store.state(behind[i].slot));
  }
  return rows;
}

bool same(const std::vector<Scored>& a, const std::vector<Scored>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Scored& x, const Scored& y) {
    return x.token == y.token && std::memcmp(x.features, y.features, sizeof x.features) == 0 &&
           x.logprobs == y.logprobs;
  });
}

void heads_against_loops(WeightType type, double tolerance) {
  int64_t silent = 0;
  for (int kind = 0; kind < kKinds; ++kind) {
    const Owned owned = make_head(kind, type);
    Bench bench(owned.head, 2);
    const Head& head = owned.head;
    bench.fill(random_floats(kSlots * 2 * kHidden, 1));
    const std::vector<ScoreRow> rows = head.past ? rows_with_past(bench.store) : greedy_rows();
    const std::vector<Scored> scored = bench.scorer.score(2, rows, kAll, true);
    for (size_t i = 0; i < rows.size(); ++i) {
      const float* state = bench.store.hidden(2, rows[i].slot);
      const float* past = rows[i].before < 0 ? nullptr : bench.store.state(rows[i].before);
      const Floats joined = joined_state(owned, state, past);
      const Doubles logits = expected_logits(owned, joined.data()), deep = deep_state(owned, joined.data());
      for (int64_t j = 0; head.past && j < kHidden; ++j) {
        CHECK(std::abs(bench.store.state(rows[i].slot)[j] - deep[j]) < 20 * tolerance * (1 + std::abs(deep[j])));
      }
      const auto winner = static_cast<int64_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      Doubles probabilities(logits);
      double total = 0;
      for (double& p : probabilities) total += p = std::exp(p - logits[winner]);
      for (double& p : probabilities) p /= total;
      double nats = 0;
      for (const double p : probabilities) nats -= p > 0 ? p * std::log(p) : 0;
      std::sort(probabilities.rbegin(), probabilities.rend());
      const double outcomes = std::log(static_cast<double>(logits.size()));
      const bool other = head.other && winner == head.matrix.n - 1;
      const bool near = probabilities[0] - probabilities[1] < 4 * tolerance;  // the winner may be the other one
      const float* f = scored[i].features;
      if (!near) {
        CHECK((scored[i].token < 0) == other);
        if (!other) CHECK(scored[i].token == (head.ids.empty() ? winner : head.ids[winner]));
      }
      silent += other;
      if (scored[i].token < 0) {
        CHECK(f[0] == 0 && f[1] == 0 && f[2] == 1);
      } else if (!other) {
        CHECK(std::abs(f[0] - probabilities[0]) < tolerance);
        CHECK(std::abs(f[1] - (probabilities[0] - probabilities[1])) < tolerance);
        CHECK(std::abs(f[2] - nats / outcomes) < tolerance);
      }
      CHECK(std::abs(f[4] - expected_classifier(owned, joined.data())) < tolerance);
      const float* previous = bench.store.hidden(1, rows[i].slot);
      double ab = 0, aa = 0, bb = 0;
      for (int64_t j = 0; j < kHidden; ++j) {
        ab += static_cast<double>(state[j]) * previous[j];
        aa += static_cast<double>(state[j]) * state[j];
        bb += static_cast<double>(previous[j]) * previous[j];
      }
      CHECK(std::abs(f[3] - std::max(0.0, ab / std::sqrt(aa * bb))) < 1e-6);
    }
    // Only features of hidden states: the same values.
    const std::vector<Scored> unread = bench.scorer.score(2, rows, saturation | classifier, false);
    for (size_t i = 0; i < rows.size(); ++i) {
      CHECK(unread[i].token == -1 && unread[i].features[0] == 0);
      CHECK(unread[i].features[3] == scored[i].features[3] && unread[i].features[4] == scored[i].features[4]);
    }
  }
  CHECK(silent > 50);
}

// Alone, in any company, on any number of threads and with any instruction set: the same bits.
void results_depend_on_the_row_alone(WeightType type) {
  const Kernels* const* tables;
  const int sets = supported_kernels(&tables);
  const std::string best = kernels().name;
  for (int kind = 0; kind < 6; ++kind) {
    const Owned owned = make_head(kind, type);
    const Floats states = random_floats(kSlots * 2 * kHidden, 1);
    const std::vector<ScoreRow> rows = mixed_rows();
    std::vector<Scored> expected;
    for (int set = 0; set < sets; ++set) {
      CHECK(choose_kernels(tables[set]->name));
      for (const int threads : {1, 2, 3}) {
        Bench bench(owned.head, threads);
        bench.fill(states);
        const std::vector<Scored> scored = bench.scorer.score(2, rows, kAll, true);
        if (expected.empty()) expected = scored;
        CHECK(same(expected, scored));
        if (threads == 3) continue;
        std::vector<Scored> alone;
        for (const ScoreRow& row : rows) alone.push_back(bench.scorer.score(2, {row}, kAll, true)[0]);
        CHECK(same(expected, alone));
      }
    }
    CHECK(choose_kernels(best.c_str()));
  }
}

void log_probabilities_are_listed_from_the_likeliest() {
  const Owned owned = make_head(1, WeightType::f32);
  Bench bench(owned.head, 2);
  bench.fill(random_floats(kSlots * 2 * kHidden, 1));
  std::vector<ScoreRow> rows(1);
  rows[0].temperature = 20, rows[0].logprobs = 5, rows[0].banned = {1, 3};
  const Scored scored = bench.scorer.score(1, rows, 0, true)[0];
  CHECK(scored.logprobs.size() == 6 && scored.logprobs[0].first == scored.token);
  Doubles logits = expected_logits(owned, bench.store.hidden(1, 0));
  logits[0] = logits[1] = -std::numeric_limits<double>::infinity();
  double total = 0;
  for (const double x : logits) total += std::exp(x);
  for (size_t i = 0; i < 6; ++i) {
    const auto [token, logprob] = scored.logprobs[i];
    CHECK(std::abs(logprob - (logits[(token - 1) / 2] - std::log(total))) < 1e-5);
    CHECK(i < 2 || scored.logprobs[i - 1].second >= logprob);
  }
}

void a_row_that_is_not_finite_fails_alone(WeightType type) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (int kind = 0; kind < 12; ++kind) {
      const Owned owned = make_head(kind, type);
      Bench bench(owned.head, 2);
      bench.fill(random_floats(kSlots * 2 * kHidden, 1));
      const std::vector<ScoreRow> rows = mixed_rows();
      std::vector<Scored> expected = bench.scorer.score(2, rows, kAll, true);
      bench.store.hidden(2, rows[7].slot)[5] = bad;
      const std::vector<Scored> scored = bench.scorer.score(2, rows, kAll, true);
      const float* f = scored[7].features;
      CHECK(scored[7].token == -1 && scored[7].logprobs.empty());
      CHECK(f[0] == 0 && f[1] == 0 && f[2] == 1 && f[3] == 0 && std::isfinite(f[4]));
      expected[7] = scored[7];
      CHECK(same(expected, scored));
    }
  }
}

void where_nothing_may_be_chosen() {
  const Owned owned = make_head(1, WeightType::f32);
  Bench bench(owned.head, 1);
  bench.fill(random_floats(kSlots * 2 * kHidden, 1));
  std::vector<ScoreRow> rows(5);
  rows[0].banned = owned.head.ids, rows[1].bias = {{2, 0.5f}}, rows[3].bias = {{2, -0.5f}};
  rows[2].mask.assign(kVocab / 8, 0x55);  // even tokens, none of which has a column
  for (ScoreRow& row : rows) row.temperature = 1, row.logprobs = 2;
  const std::vector<Scored> scored = bench.scorer.score(1, rows, kTokenNeeds, true);
  for (int i = 0; i < 5; ++i) {
    const bool silent = i < 3;
    const float* f = scored[i].features;
    CHECK((scored[i].token == -1) == silent && scored[i].logprobs.empty() == silent);
    CHECK((f[0] == 0 && f[1] == 0 && f[2] == 1) == silent);
  }
}

template <typename Error, typename Body>
bool throws(Body&& body) {
  try {
    body();
  } catch (const Error&) {
    return true;
  }
  return false;
}

void what_does_not_fit_is_refused() {
  const Owned owned = make_head(1, WeightType::f32);
  const auto refused = [&](auto&& spoil) {
    Head head = owned.head;
    spoil(head);
    return throws<std::invalid_argument>([&] { Bench(head, 1); });
  };
  CHECK(!refused([](Head&) {}));
  CHECK(refused([](Head& head) { head.norm.pop_back(); }));
  CHECK(refused([](Head& head) { head.ids.pop_back(); }));
  CHECK(refused([](Head& head) { head.ids.clear(); }));
  CHECK(refused([](Head& head) { head.ids.back() = kVocab; }));
  CHECK(refused([](Head& head) { std::swap(head.ids[0], head.ids[1]); }));
  CHECK(refused([](Head& head) { head.temperature = 0; }));
  CHECK(refused([](Head& head) { head.matrix.k -= 1; }));
  CHECK(refused([](Head& head) { head.adapter_bias.pop_back(); }));
  CHECK(refused([](Head& head) { head.classifier_up.pop_back(); }));

  Head plain = owned.head;
  plain.classifier = Head::Classifier::none;
  Bench bench(plain, 1);
  std::vector<ScoreRow> rows(1);
  CHECK(throws<std::invalid_argument>([&] { bench.scorer.score(1, rows, classifier, true); }));
  CHECK(throws<std::out_of_range>([&] { bench.scorer.score(0, rows, 0, true); }));
  CHECK(throws<std::out_of_range>([&] { bench.scorer.score(3, rows, 0, true); }));
  rows[0].slot = kSlots;
  CHECK(throws<std::out_of_range>([&] { bench.scorer.score(1, rows, 0, true); }));
  rows[0].slot = 0, rows[0].before = kSlots;
  CHECK(throws<std::out_of_range>([&] { bench.scorer.score(1, rows, 0, true); }));
  rows[0].before = -1, rows[0].mask.resize(kVocab / 8 - 1);
  CHECK(throws<std::invalid_argument>([&] { bench.scorer.score(1, rows, 0, true); }));
  CHECK(bench.scorer.score(1, {}, kTokenNeeds, true).empty());
}

}  // namespace

int main() {
  heads_against_loops(WeightType::f32, 1e-5);
  heads_against_loops(WeightType::i8, 1e-3);
  for (const WeightType type : {WeightType::f32, WeightType::bf16, WeightType::i8, WeightType::i4m}) {
    results_depend_on_the_row_alone(type);
  }
  log_probabilities_are_listed_from_the_likeliest();
  a_row_that_is_not_finite_fails_alone(WeightType::f32);
  a_row_that_is_not_finite_fails_alone(WeightType::i8);
  where_nothing_may_be_chosen();
  what_does_not_fit_is_refused();
  std::puts("ok");
}
