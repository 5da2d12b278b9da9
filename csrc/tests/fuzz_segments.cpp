// Random small models over random schedules. What a token leaves behind (hidden states, K and V) must be the same bits
// whether tokens come one by one to a model of one thread in plain C++, or in any mix of sequences, rows, instruction
// sets, threads and block sizes; and close to plain loops in double.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "plain_model.h"
#include "stage.h"

using namespace offramp;

namespace {

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
    for (int64_t i = c.toy.encoder ? random.one_of<int64_t>({1, 17, 64, 80}) : 0; i > 0; --i) {
      text.source.push_back(static_cast<int32_t>(random.below(config.vocab)));
    }
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
    if (c.toy.encoder) stage.encode({s});
    for (int64_t i = 0; i < static_cast<int64_t>(text.tokens.size()); ++i) {
      Batch batch;
      stage.append(batch, s, i, 1);
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
    for (int64_t i = 0; i < static_cast<int64_t>(text.source.size()); ++i) {
      for (int64_t layer = 0; layer < c.layers_at.back(); ++layer) {
        a.model->read_source(layer, a.source_slot(s, i), of_a.data(), of_a.data() + width);
        b.model->read_source(layer, b.source_slot(s, i), of_b.data(), of_b.data() + width);
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
    PlainModel plain(c.toy, c.texts[s].source);
    for (size_t i = 0; i < plain.source.size(); ++i) {
      for (size_t layer = 0; layer < plain.source[i].k.size(); ++layer) {
        const int64_t slot = stage.source_slot(s, static_cast<int64_t>(i));
        stage.model->read_source(static_cast<int64_t>(layer), slot, k.data(), v.data());
        close(k.data(), plain.source[i].k[layer]);
        close(v.data(), plain.source[i].v[layer]);
      }
    }
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
    stage.encode_all(random);
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

void check_source_refusals(const Stage& stage, const Batch& good) {
  Model& model = *stage.model;
  if (!stage.of.toy.encoder) {
    check_refused<std::out_of_range>([&] { model.encode(good); });
    return;
  }
  const int64_t longest = model.source_config().max_positions, size = model.source_config().block_size;
  const auto blocks = static_cast<int32_t>(model.source_config().num_blocks);
  const SourcePlace places[] = {{0, 0, 1}, {-1, 0, 1}, {longest + 1, 0, 1}, {size + 1, 0, 1}, {1, 0, 0}};
  for (const SourcePlace& place : places) {
    Batch batch = good;
    batch.sources = {place};
    check_refused<std::out_of_range>([&] { model.run_segment(0, batch); });
  }
  for (const int32_t block : {-1, blocks}) {
    Batch batch = good;
    batch.source_blocks = {block};
    check_refused<std::out_of_range>([&] { model.run_segment(0, batch); });
    batch.blocks = {block};
    check_refused<std::out_of_range>([&] { model.encode(batch); });
  }
  Batch batch = good;
  batch.sources.clear();
  check_refused<std::out_of_range>([&] { model.run_segment(0, batch); });
  batch.sources = {{1, 0, 2}};
  check_refused<std::invalid_argument>([&] { model.run_segment(0, batch); });
  batch.positions = {1};
  batch.blocks = {0, 0};
  batch.block_begin = {0, 2};
  check_refused<std::invalid_argument>([&] { model.encode(batch); });
  model.encode(Batch());
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
    batch.sources = {{1, 0, 1}};
    batch.source_blocks = {0};
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
  check_source_refusals(stage, with(0, 0, 0));
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
