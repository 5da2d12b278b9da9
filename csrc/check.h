// Checks that come before anything is computed or written.
#pragma once

#include "model.h"

namespace offramp {

// Throws std::invalid_argument where sizes do not fit together.
void check_model(const Config& config, const Matrix& embedding, const std::vector<Layer>& layers, size_t heads,
                 const Encoder* encoder);

// Throws std::out_of_range for a token, position or block that does not exist. `tokens`: whether they are read.
void check_batch(const Config& config, const Batch& batch, bool tokens);

// Of whole sources to be encoded, and of the places of sources that a batch attends to. `config` is that of the store
// of sources. They throw as above.
void check_sources(const Config& config, const Batch& batch);
void check_places(const Config& config, const Batch& batch);

}  // namespace offramp
