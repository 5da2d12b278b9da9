// Random small models over random schedules. What a token leaves behind (hidden states, K and V) must be the same bits
// whether tokens come one by one to a model of one thread in plain C++, or in any mix of sequences, rows, instruction
// sets, threads and block sizes; and close to plain loops in double.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <vector>

#include "plain_model.h"

using namespace offramp;

namespace {

// A sequence: its tokens, and the boundary at which each leaves (the top: it runs all the way).
struct Text {
  std::vector<int32_t> tokens;
  std::vector<int64_t> exits;
  int64_t spoiled = -1;  // the hidden state of this token becomes NaN at boundary 1
};

struct Case {
  Toy toy;
  std::vector<Text> texts;

  int64_t top() const { return static_cast<int64_t>(toy.config.layers_at.size()) - 1; }
};

// A model, and where the sequences of a case lie in its store.
struct Stage {
  const Case& of;
  std::unique_ptr<Model> model;
  std::vector<std::vector<int32_t>> blocks;     // of each sequence
  std::vector<std::vector<int64_t>> frontiers;  // [sequence][segment]: tokens whose K and V are written

  Stage(Random& random, const Case& c, int64_t block_size, int threads) : of(c) {
    int64_t needed = 0;
    for (const Text& text : c.texts) needed += ceil_div(static_cast<int64_t>(text.tokens.size()), block_size);
    std::vector<int32_t> order(static_cast<size_t>(needed + 2));
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = static_cast<int32_t>(i);
      std::swap(order[i], order[random.below(static_cast<int64_t>(i) + 1)]);
    }
    model = c.toy.model(block_size, static_cast<int64_t>(order.size()), threads);
    size_t next = 0;
    for (const Text& text : c.texts) {
      const int64_t count = ceil_div(static_cast<int64_t>(text.tokens.size()), block_size);
      blocks.emplace_back(order.begin() + next, order.begin() + next + count);
      next += count;
      frontiers.emplace_back(c.top());
    }
    // What no token has written is poison.
    const Config& config = c.toy.config;
    const std::vector<float> poison(static_cast<size_t>(config.kv_heads * config.head_dim),
                                    std::numeric_limits<float>::quiet_NaN());
    for (int64_t slot = 0; slot < model->store().num_slots(); ++slot) {
      for (int64_t layer = 0; layer < config.layers_at.back(); ++layer) {
        model->store().write(layer, slot, poison.data(), poison.data());
      }
    }
  }

  int64_t slot(size_t sequence, int64_t position) const {
    const int64_t size = model->config().block_size;
    return blocks[sequence][position / size] * size + position % size;
  }

  static void append(Batch& batch, const Text& text, const std::vector<int32_t>& table, int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; ++i) {
      batch.positions.push_back(i);
      batch.tokens.push_back(text.tokens[i]);
    }
    batch.blocks.insert(batch.blocks.end(), table.begin(), table.end());
    batch.row_begin.push_back(batch.rows());
    batch.block_begin.push_back(static_cast<int64_t>(batch.blocks.size()));
  }

  // How many tokens of a sequence wait at a segment for the same as the first of them: to run (0), or to pass from the
  // boundary returned.
  int64_t waiting(size_t sequence, int64_t segment, int64_t* passed_from) const {
    const Text& text = of.texts[sequence];
    const std::vector<int64_t>& f = frontiers[sequence];
    const int64_t end = segment == 0 ? static_cast<int64_t>(text.tokens.size()) : f[segment - 1];
    const auto kind = [&](int64_t i) { return text.exits[i] <= segment ? text.exits[i] : 0; };
    int64_t i = f[segment];
    if (i < end) *passed_from = kind(i);
    while (i < end && kind(i) == *passed_from) ++i;
    return i - f[segment];
  }

  // Moves some sequences on at a segment, at most `most` tokens each.
  void advance(Random& random, int64_t segment, int64_t most) {
    Batch batch;
    int64_t kind = -1;
    std::vector<std::pair<size_t, int64_t>> moved;
    for (size_t s = 0; s < of.texts.size(); ++s) {
      int64_t own = 0;
      int64_t count = std::min(most, waiting(s, segment, &own));
      if (count == 0 || (kind >= 0 && own != kind)) continue;
      if (random.chance(4)) {
        if (random.chance(2)) append(batch, of.texts[s], blocks[s], frontiers[s][segment], 0);  // no rows
        continue;
      }
      kind = own;
      count = random.between(1, count);
      append(batch, of.texts[s], blocks[s], frontiers[s][segment], count);
      moved.emplace_back(s, count);
    }
    if (kind > 0)
      model->pass_tokens(kind, segment, segment + 1, batch);
    else
      model->run_segment(segment, batch);
    for (const auto& [s, count] : moved) {
      const int64_t spoiled = of.texts[s].spoiled, from = frontiers[s][segment];
      if (segment == 0 && kind == 0 && from <= spoiled && spoiled < from + count) {
        model->store().hidden(1, slot(s, spoiled))[0] = std::numeric_limits<float>::quiet_NaN();
      }
      frontiers[s][segment] += count;
    }
  }

  bool done() const {
    for (size_t s = 0; s < of.texts.size(); ++s) {
      if (frontiers[s].back() < static_cast<int64_t>(of.texts[s].tokens.size())) return false;
    }
    return true;
  }
};

Case random_case(Random& random, bool spoil) {
  const Config config = ToyMaker::random_config(random);
  Case c = {ToyMaker(random).make(config), {}};
  const int64_t sequences = random.between(1, 6);
  for (int64_t s = 0; s < sequences; ++s) {
    Text text;
    const int64_t length = random.one_of<int64_t>({1, 5, 20, 70}) + random.below(8);
    for (int64_t i = 0; i < length; ++i) {
      text.tokens.push_back(static_cast<int32_t>(random.below(config.vocab)));
      text.exits.push_back(random.chance(4) ? random.between(1, c.top()) : c.top());
    }
    if (spoil && s == 0 && c.top() > 1) text.spoiled = random.below(length);
    c.texts.push_back(std::move(text));
  }
  return c;
}

// One token after the other, on one thread of plain C++.
Stage run_one_by_one(Random& random, const Case& c) {
  CHECK(choose_kernels("portable"));
  Stage stage(random, c, 16, 1);
  for (size_t s = 0; s < c.texts.size(); ++s) {
    const Text& text = c.texts[s];
    for (int64_t i = 0; i < static_cast<int64_t>(text.tokens.size()); ++i) {
      Batch batch;
      Stage::append(batch, text, stage.blocks[s], i, 1);
      for (int64_t segment = 0; segment < text.exits[i]; ++segment) {
        stage.model->run_segment(segment, batch);
        if (segment == 0 && i == text.spoiled) stage.model->store().hidden(1, stage.slot(s, i))[0] = std::nanf("");
      }
      if (text.exits[i] < c.top()) stage.model->pass_tokens(text.exits[i], text.exits[i], c.top(), batch);
    }
  }
  return stage;
}

// Calls visit(a, b, count) for all that a token leaves behind.
template <typename Visit>
void for_each_trace(const Stage& a, const Stage& b, Visit&& visit) {
  const Config& c = a.of.toy.config;
  const int64_t width = c.kv_heads * c.head_dim;
  std::vector<float> of_a(static_cast<size_t>(2 * width)), of_b(of_a);
  for (size_t s = 0; s < a.of.texts.size(); ++s) {
    const Text& text = a.of.texts[s];
    for (int64_t i = 0; i < static_cast<int64_t>(text.tokens.size()); ++i) {
      for (int64_t boundary = 1; boundary <= text.exits[i]; ++boundary) {
        visit(a.model->store().hidden(boundary, a.slot(s, i)), b.model->store().hidden(boundary, b.slot(s, i)),
              c.hidden);
      }
      for (int64_t layer = 0; layer < c.layers_at.back(); ++layer) {
        a.model->store().read(layer, a.slot(s, i), of_a.data(), of_a.data() + width);
        b.model->store().read(layer, b.slot(s, i), of_b.data(), of_b.data() + width);
        visit(of_a.data(), of_b.data(), 2 * width);
      }
    }
  }
}

void check_close(const Case& c, const Stage& stage) {
  // Integers of 16 bits, and K or V that fall on the other side of a rounding, are what differs from doubles.
  const double tolerance = c.toy.config.half_kv ? 8e-3 : 1e-3;
  const int64_t width = c.toy.config.kv_heads * c.toy.config.head_dim;
  std::vector<float> k(static_cast<size_t>(width)), v(k);
  const auto close = [tolerance](const float* found, const Doubles& expected) {
    for (size_t i = 0; i < expected.size(); ++i)
      CHECK(std::abs(found[i] - expected[i]) <= tolerance * (1 + std::abs(expected[i])));
  };
  for (size_t s = 0; s < c.texts.size(); ++s) {
    PlainModel plain(c.toy);
    for (size_t i = 0; i < c.texts[s].tokens.size(); ++i) {
      plain.add(c.texts[s].tokens[i], c.texts[s].exits[i]);
      const PlainModel::State& state = plain.states.back();
      const int64_t slot = stage.slot(s, static_cast<int64_t>(i));
      for (int64_t b = 1; b <= c.texts[s].exits[i]; ++b) close(stage.model->store().hidden(b, slot), state.hidden[b]);
      for (size_t layer = 0; layer < state.k.size(); ++layer) {
        stage.model->store().read(static_cast<int64_t>(layer), slot, k.data(), v.data());
        close(k.data(), state.k[layer]);
        close(v.data(), state.v[layer]);
      }
    }
  }
}

void check_case(Random& random, bool spoil) {
  const Case c = random_case(random, spoil);
  const Stage expected = run_one_by_one(random, c);
  if (!spoil) check_close(c, expected);
  for_each_isa([&](const char*) {
    Stage stage(random, c, random.between(1, 33), static_cast<int>(random.between(1, 3)));
    while (!stage.done()) stage.advance(random, random.below(c.top()), random.one_of<int64_t>({1, 4, 100}));
    for_each_trace(expected, stage, [](const float* a, const float* b, int64_t n) { CHECK(same_bits(a, b, n)); });
  });
}

template <typename Error, typename Call>
void check_refused(Call&& call) {
  bool refused = false;
  try {
    call();
  } catch (const Error&) {
    refused = true;
  }
  CHECK(refused);
}

// What does not exist is refused before anything is written.
void check_refusals(Random& random) {
  Case c = random_case(random, false);
  const int64_t last = c.top() - 1, size = random.between(1, 9);
  Stage stage(random, c, size, 2);
  Model& model = *stage.model;
  const auto with = [&](int64_t position, int32_t token, int32_t block) {
    Batch batch;
    batch.positions = {position};
    batch.tokens = {token};
    batch.blocks = {block};
    batch.row_begin = batch.block_begin = {0, 1};
    return batch;
  };
  const auto vocab = static_cast<int32_t>(c.toy.config.vocab), blocks = static_cast<int32_t>(model.config().num_blocks);
  const Batch wrong[] = {with(-1, 0, 0),    with(size, 0, 0),  with(c.toy.config.max_positions, 0, 0),
                         with(0, -1, 0),    with(0, vocab, 0), with(0, 0, -1),
                         with(0, 0, blocks)};
  for (const Batch& batch : wrong) check_refused<std::out_of_range>([&] { model.run_segment(0, batch); });
  for (const Batch& batch : {wrong[0], wrong[1], wrong[6]}) {
    check_refused<std::out_of_range>([&] { model.pass_tokens(1, 0, 1, batch); });
  }
  Batch twice = with(0, 0, 0);
  twice.positions = {0, 0};
  twice.tokens = {0, 0};
  twice.row_begin = {0, 2};
  check_refused<std::out_of_range>([&] { model.run_segment(0, twice); });
  for (const int64_t segment : {int64_t{-1}, last + 1}) {
    check_refused<std::out_of_range>([&] { model.run_segment(segment, Batch()); });
  }
  check_refused<std::out_of_range>([&] { model.pass_tokens(0, 0, 1, Batch()); });
  check_refused<std::out_of_range>([&] { model.pass_tokens(last + 2, 0, 1, Batch()); });
  check_refused<std::out_of_range>([&] { model.pass_tokens(1, 0, last + 2, Batch()); });
  std::vector<float> values(static_cast<size_t>(c.toy.config.kv_heads * c.toy.config.head_dim)), others(values);
  for (int64_t slot = 0; slot < model.store().num_slots(); ++slot) {
    model.store().read(0, slot, values.data(), others.data());
    CHECK(std::isnan(values[0]));
  }
  model.run_segment(0, Batch());  // nothing to do
  Toy broken = random_case(random, false).toy;
  broken.layers[0].down.k += 1;
  check_refused<std::invalid_argument>([&] { broken.model(4, 4, 1); });
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t seed = argc > 1 ? std::atoll(argv[1]) : 1, cases = argc > 2 ? std::atoll(argv[2]) : 40;
  for (int64_t i = 0; i < cases; ++i) {
    Random random(static_cast<uint64_t>(seed * 100000 + i));
    check_case(random, i % 4 == 3);
    check_refusals(random);
  }
}
