// Sequences, and a model that takes them in by and by.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "toy_model.h"

namespace offramp {

// A sequence: its tokens, and the boundary at which each leaves (the top: it runs all the way).
struct Text {
  std::vector<int32_t> tokens;
  std::vector<int64_t> exits;
  std::vector<int32_t> source;  // of a model with an encoder
  int64_t spoiled = -1;         // the hidden state of this token becomes NaN at boundary 1
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
  std::vector<std::vector<int32_t>> sources;    // blocks of its source
  std::vector<std::vector<int64_t>> frontiers;  // [sequence][segment]: tokens whose K and V are written

  Stage(Random& random, const Case& c, int64_t block_size, int threads) : of(c) {
    const int64_t num_blocks = deal(random, block_size, &Text::tokens, &blocks);
    model = c.toy.model(block_size, num_blocks, threads, deal(random, block_size, &Text::source, &sources));
    for (size_t s = 0; s < c.texts.size(); ++s) frontiers.emplace_back(c.top());
    poison(model->store());
    if (c.toy.encoder) poison(model->sources());
  }

  // Blocks for what each sequence has, in a random order, of a store with some more; how many there are.
  int64_t deal(Random& random, int64_t block_size, std::vector<int32_t> Text::* tokens,
               std::vector<std::vector<int32_t>>* tables) const {
    int64_t needed = 0;
    for (const Text& text : of.texts) needed += ceil_div(static_cast<int64_t>((text.*tokens).size()), block_size);
    std::vector<int32_t> order(static_cast<size_t>(needed + 2));
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = static_cast<int32_t>(i);
      std::swap(order[i], order[random.below(static_cast<int64_t>(i) + 1)]);
    }
    size_t next = 0;
    for (const Text& text : of.texts) {
      const int64_t count = ceil_div(static_cast<int64_t>((text.*tokens).size()), block_size);
      tables->emplace_back(order.begin() + next, order.begin() + next + count);
      next += count;
    }
    return needed + 2;
  }

  // What no token has written is not a number.
  void poison(Store& store) const {
    const Config& config = of.toy.config;
    const std::vector<float> nan(static_cast<size_t>(config.kv_heads * config.head_dim), std::nanf(""));
    for (int64_t slot = 0; slot < store.num_slots(); ++slot) {
      for (int64_t layer = 0; layer < store.shape().layers; ++layer) store.write(layer, slot, nan.data(), nan.data());
    }
  }

  int64_t slot(size_t sequence, int64_t position) const {
    const int64_t size = model->config().block_size;
    return blocks[sequence][position / size] * size + position % size;
  }

  int64_t source_slot(size_t sequence, int64_t position) const {
    const int64_t size = model->config().block_size;
    return sources[sequence][position / size] * size + position % size;
  }

  // Encodes the sources of some sequences.
  void encode(const std::vector<size_t>& sequences) const {
    Batch batch;
    for (const size_t s : sequences) {
      const std::vector<int32_t>& tokens = of.texts[s].source;
      for (size_t i = 0; i < tokens.size(); ++i) batch.positions.push_back(static_cast<int64_t>(i));
      batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
      batch.blocks.insert(batch.blocks.end(), sources[s].begin(), sources[s].end());
      batch.row_begin.push_back(batch.rows());
      batch.block_begin.push_back(static_cast<int64_t>(batch.blocks.size()));
    }
    model->encode(batch);
  }

  // All of them, in batches.
  void encode_all(Random& random) const {
    if (!of.toy.encoder) return;
    std::vector<size_t> together;
    for (size_t s = 0; s < of.texts.size(); ++s) {
      together.push_back(s);
      if (!random.chance(2) && s + 1 < of.texts.size()) continue;
      encode(together);
      together.clear();
    }
  }

  void append(Batch& batch, size_t sequence, int64_t first, int64_t count) const {
    const Text& text = of.texts[sequence];
    const std::vector<int32_t>&table = blocks[sequence], &source = sources[sequence];
    const auto at = static_cast<int64_t>(batch.source_blocks.size()), own = static_cast<int64_t>(source.size());
    batch.sources.push_back({static_cast<int64_t>(text.source.size()), at, at + own});
    batch.source_blocks.insert(batch.source_blocks.end(), source.begin(), source.end());
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
        if (random.chance(2)) append(batch, s, frontiers[s][segment], 0);  // no rows
        continue;
      }
      kind = own;
      count = random.between(1, count);
      append(batch, s, frontiers[s][segment], count);
      moved.emplace_back(s, count);
    }
    if (kind > 0)
      model->pass_tokens(kind, segment, segment + 1, batch);
    else
      model->run_segment(segment, batch);
    for (const auto& [s, count] : moved) {
      const int64_t spoiled = of.texts[s].spoiled, from = frontiers[s][segment];
      if (segment == 0 && kind == 0 && from <= spoiled && spoiled < from + count) {
        model->store().hidden(1, slot(s, spoiled))[0] = std::nanf("");
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

}  // namespace offramp
