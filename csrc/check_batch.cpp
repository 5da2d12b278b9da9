// Checks of batches: of tokens, of sources to be encoded, and of sources that are attended to.
#include <stdexcept>
#include <string>

#include "check.h"

namespace offramp {
namespace {

[[noreturn]] void miss(const std::string& message) { throw std::out_of_range(message); }

// The blocks [begin, end) of a table, of which so many positions are read.
void check_blocks(const Config& c, const std::vector<int32_t>& blocks, int64_t begin, int64_t end, int64_t positions) {
  const int64_t needed = ceil_div(positions, c.block_size);
  if (end - begin < needed) miss("a block table does not reach its positions");
  for (int64_t i = begin; i < begin + needed; ++i) {
    if (blocks[i] < 0 || blocks[i] >= c.num_blocks) miss("there is no block " + std::to_string(blocks[i]));
  }
}

void check_positions(const Config& c, const Batch& batch, int64_t sequence) {
  int64_t last = -1;
  for (int64_t row = batch.row_begin[sequence]; row < batch.row_begin[sequence + 1]; ++row) {
    const int64_t position = batch.positions[row];
    if (position < 0 || position >= c.max_positions) miss("there is no position " + std::to_string(position));
    if (position <= last) miss("positions do not ascend");
    last = position;
  }
  check_blocks(c, batch.blocks, batch.block_begin[sequence], batch.block_begin[sequence + 1], last + 1);
}

}  // namespace

void check_batch(const Config& c, const Batch& batch, bool tokens) {
  if (batch.row_begin.size() != batch.block_begin.size() || batch.row_begin.empty() ||
      batch.row_begin.back() != batch.rows() || batch.block_begin.back() != static_cast<int64_t>(batch.blocks.size())) {
    throw std::invalid_argument("the batch does not fit together");
  }
  for (int64_t s = 0; s < batch.sequences(); ++s) check_positions(c, batch, s);
  if (!tokens) return;
  if (static_cast<int64_t>(batch.tokens.size()) != batch.rows()) miss("there must be as many tokens as positions");
  for (const int32_t token : batch.tokens) {
    if (token < 0 || token >= c.vocab) miss("there is no token " + std::to_string(token));
  }
}

void check_sources(const Config& c, const Batch& batch) {
  check_batch(c, batch, true);
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const int64_t begin = batch.row_begin[s], end = batch.row_begin[s + 1];
    if (begin < end && batch.positions[end - 1] != end - 1 - begin) {
      throw std::invalid_argument("a source must be encoded as a whole");
    }
  }
}

void check_places(const Config& c, const Batch& batch) {
  if (static_cast<int64_t>(batch.sources.size()) != batch.sequences()) miss("each sequence must have a source");
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    if (batch.row_begin[s] == batch.row_begin[s + 1]) continue;
    const SourcePlace& place = batch.sources[s];
    if (place.length < 1 || place.length > c.max_positions) {
      miss("a source must have 1 to " + std::to_string(c.max_positions) + " tokens, not " +
           std::to_string(place.length));
    }
    if (place.begin < 0 || place.end > static_cast<int64_t>(batch.source_blocks.size())) {
      throw std::invalid_argument("the batch does not fit together");
    }
    check_blocks(c, batch.source_blocks, place.begin, place.end, place.length);
  }
}

}  // namespace offramp
